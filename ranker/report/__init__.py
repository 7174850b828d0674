"""Predictions on disk, and the report made from them without the model."""
