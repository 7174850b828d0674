"""Heads: features to one logit per task, one head per file."""
