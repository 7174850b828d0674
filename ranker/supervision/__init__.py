"""Keeps a run alive, and tells how it ended: signals, peers, status, broken losses."""
