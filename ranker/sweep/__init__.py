"""Sweeps: many training runs of one command, each in its own process, and one report on them."""
