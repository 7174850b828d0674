"""Objectives: logits and labels to one loss, one objective per file."""
