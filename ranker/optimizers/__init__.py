"""Optimizers: of tables, fused into the lookup's backward or dense, and of everything else."""
