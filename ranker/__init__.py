"""The ranking model, its training and its evaluation."""

import os

# A thread of PyTorch's GNU OpenMP that waits for another spins for milliseconds. Where a core has
# something else to do, the loader's thread or another process, two such threads were ten times
# slower than one. OpenMP reads this when torch is imported; a choice of the user's stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
