"""Sequence encoders: behaviours and a candidate to a vector, one encoder per file."""
