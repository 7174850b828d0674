"""Exact evaluation metrics on numpy arrays: one family per file, undefined is never a number."""
