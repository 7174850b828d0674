"""Process groups, and the few collectives that training and evaluation use.

World size 1 takes the same path.
"""

import dataclasses
import datetime
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ranker.freed_memory import keep_freed_memory

# gloo raises a plain RuntimeError; these are parts of its texts
_PEER_FAILURES = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Application timeout caused pair closure",
    "/gloo/",
)


@dataclasses.dataclass(frozen=True)
class Process:
    """This process among the others: its rank, the world size and its device."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0


@contextmanager
def process_group(device: str = "auto", timeout_seconds: float = 600.0) -> Iterator[Process]:
    """Joins the processes that torchrun started, or makes a group of one when there is no torchrun.

    Args:
        device: "cpu", "cuda" or "auto" (CUDA where there is a GPU).
        timeout_seconds: after this long without an answer a collective fails instead of hanging.

    Raises:
        ValueError: trainer.device names a device that is not there, or there are more processes
            than GPUs.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"trainer.device is {device!r}; must be auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "trainer.device is 'cuda', but torch sees no GPU; use trainer.device=cpu or auto"
        )
    on_gpu = device != "cpu" and torch.cuda.is_available()
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    target = _own_gpu() if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(target)
    else:
        keep_freed_memory()
    options: dict[str, Any] = {
        "backend": "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        "timeout": datetime.timedelta(seconds=timeout_seconds),
    }
    with tempfile.TemporaryDirectory() as folder:
        if "RANK" in os.environ:
            store = _store_of_attempt(options["timeout"])
            dist.init_process_group(**options, store=store, rank=rank, world_size=world_size)
        else:
            # a file store needs no free port
            store = dist.FileStore(str(Path(folder) / "store"), 1)  # type: ignore[attr-defined]
            dist.init_process_group(**options, store=store, rank=0, world_size=1)
        try:
            yield Process(rank, world_size, target)
        finally:
            dist.destroy_process_group()


def _own_gpu() -> torch.device:
    local_rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(
            f"process {local_rank} of this machine (LOCAL_RANK) has no GPU: torch sees {count}. "
            f"Start one process a GPU, torchrun --nproc-per-node={count}, and let each process "
            "see all of them; or use trainer.device=cpu"
        )
    return torch.device("cuda", local_rank)


def _store_of_attempt(timeout: datetime.timedelta) -> Store:
    """Returns the store that torchrun gave, with a prefix of its own for each restart.

    The store of one machine outlives a restart, and with it the addresses of ranks that are gone.
    On several machines restarts are not counted alike; docs/operations.md says what helps there.
    """
    store, _, _ = next(rendezvous("env://", timeout=timeout))
    is_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if is_one_machine else "0"
    return PrefixStore(f"attempt-{attempt}", store)


def is_peer_failure(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone or does not answer."""
    seen: BaseException | None = error
    while seen is not None:
        # other sockets break too, with an OSError: a data worker's, the file system's
        told = isinstance(seen, RuntimeError) and any(sign in str(seen) for sign in _PEER_FAILURES)
        if told or isinstance(seen, dist.DistError):
            return True
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return False


def world_size() -> int:
    """Returns the number of processes; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """Returns the sum of `values` over all ranks, without gradient."""
    total = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Returns this rank's share of the weighted mean over the *global* batch, times the world size.

    Gradients are averaged over ranks, so the average of the shares is the global mean and its
    gradient is the same on 1 and N ranks, however the rows are dealt. A batch without weight gives
    0.

    Args:
        values: [C] one value per row.
        weights: [C] not negative.
    """
    total = sum_over_ranks(weights.sum())
    share = (values * weights).sum() / total.clamp_min(torch.finfo(values.dtype).tiny)
    return share * world_size()


def gather_sizes(size: int, device: torch.device) -> list[int]:
    """Returns every rank's number, in the order of the ranks."""
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=device)
    sizes[dist.get_rank() if world_size() > 1 else 0] = size
    return sum_over_ranks(sizes).tolist()


def mean_over_ranks(values: Tensor) -> Tensor:
    """Returns the mean of `values` over all ranks, without gradient."""
    return sum_over_ranks(values) / world_size()


def agree(function: Callable[[], None], kind: type[Exception]) -> None:
    """Calls `function` on every rank; raises on all ranks if it raised on any, each message once.

    Args:
        function: may raise `kind`.
        kind: exception that takes a message.

    Raises:
        Exception: of the given kind.
    """
    problem = None
    try:
        function()
    except kind as error:
        problem = str(error)
    found = list(dict.fromkeys(text for text in gather_to_all(problem) if text is not None))
    if found:
        raise kind("\n".join(found))


def gather_to_all(value: Any) -> list[Any]:
    """Returns every rank's `value` on every rank."""
    values: list[Any] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def gather_to_main(value: Any) -> list[Any] | None:
    """Returns every rank's `value` on rank 0, None elsewhere."""
    if world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values)
    return values


def broadcast_from_main(value: Any) -> Any:
    """Returns rank 0's `value` on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def barrier() -> None:
    """Waits for all ranks."""
    if world_size() > 1:
        dist.barrier()
