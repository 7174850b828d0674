"""How long a call takes: processor time on a CPU, the time between two events on a GPU."""

import time
from collections.abc import Callable

import torch


def time_call(call: Callable[[], object], device: str) -> float:
    """Returns seconds; on a GPU after emptying its cache."""
    if device == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    # larger than any level-2 cache
    torch.empty(1 << 28, dtype=torch.uint8, device=device).zero_()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3
