"""How long a call takes: processor time on a CPU, the time between two events on a GPU."""

import time
from collections.abc import Callable

import torch

# 5 ms of an H200; more than the host takes for the launches of a call
AHEAD = 10_000_000


def time_call(call: Callable[[], object], device: str) -> float:
    """Returns seconds; on a GPU after emptying its cache, and with all launches queued.

    Launches take the host longer than many a kernel runs: the GPU idles first, so that what is
    measured is its own time. See `time_host` for the other.
    """
    if device == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    # larger than any level-2 cache
    torch.empty(1 << 28, dtype=torch.uint8, device=device).zero_()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda._sleep(AHEAD)  # type: ignore[no-untyped-call]
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def time_host(call: Callable[[], object]) -> float:
    """Returns the seconds after which a call gives the host back, with nothing queued before."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    torch.cuda.synchronize()
    return seconds
