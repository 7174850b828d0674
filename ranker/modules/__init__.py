"""Small layers that several slots share."""
