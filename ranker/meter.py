"""What a training step costs besides its loss: waiting for data, and memory."""

import resource
import sys
import time

import torch
import torch.distributed as dist

# ru_maxrss is in bytes on macOS, in KiB elsewhere
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Meter:
    """Measures between two training records; the rank that is worst off speaks for all.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._since, self._waited = time.perf_counter(), 0.0

    def read(self, wait_seconds: float) -> dict[str, float]:
        """Returns the share of the time that went into waiting for data, and the peak of memory.

        Every rank calls it.

        Args:
            wait_seconds: that this rank has waited since the start.

        Returns:
            `data_wait_fraction` and `memory_gb` (10^9 bytes: of the GPU, or of the process without
            one), the largest of all ranks.
        """
        now = time.perf_counter()
        share = (wait_seconds - self._waited) / max(now - self._since, 1e-9)
        values = torch.tensor([min(share, 1.0), self._memory_bytes() / 1e9], dtype=torch.float64)
        values = values.to(self.device)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        self.restart(wait_seconds)
        wait, memory = values.tolist()
        return {"data_wait_fraction": wait, "memory_gb": memory}

    def restart(self, wait_seconds: float) -> None:
        """Leaves the time until now out: an evaluation or a save took it."""
        self._since, self._waited = time.perf_counter(), wait_seconds

    def _memory_bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
