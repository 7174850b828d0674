"""Converters of public data sets and the simulator; each is one file."""
