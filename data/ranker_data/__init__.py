"""Schema, event log, loader, simulator and data set converters; knows nothing of `ranker`."""
