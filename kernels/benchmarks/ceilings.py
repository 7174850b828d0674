"""What the device can do at best: copying memory, and multiplying matrices."""

from typing import NamedTuple

import torch

from benchmarks.timing import time_call
from benchmarks.workload import Cost


class Ceilings(NamedTuple):
    """Measured on the device: bytes and floating-point operations a second."""

    bandwidth: float
    arithmetic: float

    def fastest(self, cost: Cost) -> float:
        """Returns the least seconds that the cost can take."""
        return max(cost.bytes / self.bandwidth, cost.flops / self.arithmetic)


def measure_ceilings(device: str, dtype: torch.dtype) -> Ceilings:
    """Copies memory beyond the caches and multiplies square matrices; the best of a few."""
    numbers, side = (1 << 29, 8192) if device == "cuda" else (1 << 26, 1024)
    source = torch.zeros(numbers, dtype=dtype, device=device)
    target = torch.empty_like(source)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    copy = min(time_call(lambda: target.copy_(source), device) for _ in range(5))
    product = min(time_call(lambda: left @ right, device) for _ in range(5))
    return Ceilings(2 * source.nbytes / copy, 2 * side**3 / product)
