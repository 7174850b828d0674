"""Gates on the shared embedding: one class a file."""
