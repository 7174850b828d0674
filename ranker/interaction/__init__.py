"""Feature interactions: one class a file."""
