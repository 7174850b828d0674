"""The ranking model, its training and its evaluation."""

import os

# A worker of PyTorch's GNU OpenMP spins for milliseconds when it has nothing to do, on a core that
# the loader's thread, or another process, could use: training on two threads was no faster than on
# one. It reads this when torch is imported; a choice of the user's stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
