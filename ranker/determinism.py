"""Bit-for-bit repeatable training on a GPU; a CPU run repeats itself anyway."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Makes torch use deterministic algorithms, and refuse an operation that has none.

    Args:
        enabled: False changes nothing.
    """
    if not enabled:
        yield
        return
    # cuBLAS reads it when the first handle is made
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
