"""Saves checkpoints that are either whole or not there, in step with training or behind it.

All ranks write their shards into a temporary folder and hash their own files; rank 0 adds the
manifest and renames the folder when all are done. A failed save leaves the older checkpoints as
they were, and all ranks learn of it.
"""

import contextlib
import copy
import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save

from ranker.checkpoint import Trainable, explain
from ranker.checkpoint_files import CheckpointError, begin, commit, describe_files, prune
from ranker.distributed import is_peer_failure
from ranker.exit_codes import NonFiniteError

# room asked for before a save: the bytes of the tensors and a tenth
_MARGIN = 1.1
_CLOSE_SECONDS = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What one checkpoint will hold.

    Attributes:
        step: global step, names it.
        tensors: nested, as `Trainable.tensors` returns them.
        state: JSON state.
        protect: step of the best checkpoint, which is not pruned.
    """

    step: int
    tensors: dict[str, Any]
    state: Mapping[str, Any]
    protect: int | None


class CheckpointWriter:
    """Writes the checkpoints of a run; every rank calls the same methods.

    Args:
        folder: holds the run's checkpoints.
        keep: newest checkpoints to keep besides the best.
        asynchronous: copy the state to host memory and write it behind the training. The next save
            waits for it.

    Attributes:
        seconds: that the last save took on this rank, from the call to the rename.
        saved_step: step of the newest checkpoint that was written; None before.
    """

    def __init__(self, folder: Path, *, keep: int, asynchronous: bool) -> None:
        self.folder, self.keep = folder, keep
        # collectives of a save that runs behind the training must not match those of training
        self._group = dist.new_group(backend="gloo")
        self._asynchronous = asynchronous
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.seconds = 0.0
        self.saved_step: int | None = None

    def save(
        self, step: int, trainable: Trainable, state: Mapping[str, Any], protect: int | None
    ) -> None:
        """Writes a checkpoint, or begins to.

        Raises:
            CheckpointError: this save, or the one before it, could not be written.
            NonFiniteError: a weight or an optimizer state is NaN or infinite.
        """
        self.wait()
        tensors = trainable.tensors()
        snapshot = Snapshot(
            step=step,
            tensors=to_host(tensors) if self._asynchronous else tensors,
            state={"step": step, **state},
            protect=protect,
        )
        if not self._asynchronous:
            self._write(snapshot)
            return
        # a daemon: a failing process must not wait for a save whose other ranks may be gone
        self._thread = threading.Thread(
            target=self._write_behind, args=(snapshot,), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Waits for the save that is under way.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def close(self) -> None:
        """Gives a save that is under way a little time to end, whatever comes of it."""
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _write_behind(self, snapshot: Snapshot) -> None:
        try:
            self._write(snapshot)
        except BaseException as error:
            self._failure = error

    def _write(self, snapshot: Snapshot) -> None:
        since = time.monotonic()
        is_main = dist.get_rank() == 0
        temporary = self.folder / f".tmp-step-{snapshot.step:08d}"
        flat = flatten_state_dict(snapshot.tensors)[0]
        sizes = self._gather(sum(_local_bytes(value) for value in flat.values()))
        try:
            self._check_finite(flat, snapshot.step)
            self._together(
                lambda: is_main and begin(self.folder, snapshot.step, int(sum(sizes) * _MARGIN))
            )
            self._together(
                lambda: save(snapshot.tensors, checkpoint_id=temporary, process_group=self._group)
            )
            entries = self._together(lambda: describe_files(_files_of(temporary, dist.get_rank())))
            manifest = {
                "format": 1,
                "torch": torch.__version__,
                "world_size": dist.get_world_size(),
                "files": {name: entry for rank in entries for name, entry in rank.items()},
            }
            self._together(lambda: is_main and commit(temporary, snapshot.state, manifest))
        except CheckpointError:
            if is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        self.saved_step = snapshot.step
        if is_main:
            # what cannot be deleted now is deleted after the next save
            with contextlib.suppress(OSError):
                prune(self.folder, self.keep, snapshot.protect)
        self.seconds = time.monotonic() - since

    def _together(self, action: Callable[[], Any]) -> list[Any]:
        """Does something on every rank, and raises on all of them if it failed on any."""
        problem, free, result = None, None, None
        try:
            result = action()
        except (CheckpointException, OSError) as error:  # the former is no Exception
            if is_peer_failure(error):
                raise
            # measured where it failed: ranks that measured apart would tell different errors
            problem, free = explain(error), _free(self.folder)
        outcomes = self._gather((problem, free, result))
        problems = {text: free for text, free, _ in outcomes if text is not None}
        if problems:
            details = "; ".join((*problems, next(iter(problems.values()))))
            raise CheckpointError(
                f"no checkpoint could be written to {self.folder} ({details}); older checkpoints "
                "are untouched"
            )
        return [value for _, _, value in outcomes]

    def _check_finite(self, flat: Mapping[str, Any], step: int) -> None:
        broken = [key for key, value in flat.items() if not _is_finite(value)]
        found = sorted({key for keys in self._gather(broken) for key in keys})
        if found:
            raise NonFiniteError(
                f"{found[0]} and {len(found) - 1} other tensors are not finite after step {step}; "
                "this state is not saved. Launch the same command again to go on from the last "
                "checkpoint, with lower learning rates"
            )

    def _gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values


def to_host(value: Any) -> Any:
    """Copies a nested state into host memory; later steps do not change the copy."""
    if isinstance(value, dict):
        return {key: to_host(item) for key, item in value.items()}
    if isinstance(value, ShardedTensor):
        shards = value.local_shards()
        return value.cpu() if shards and shards[0].tensor.is_cuda else copy.deepcopy(value)
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def _local_tensors(value: Any) -> list[Tensor]:
    if isinstance(value, ShardedTensor):
        return [shard.tensor for shard in value.local_shards()]
    # a tensor that every rank has is written once
    return [value] if isinstance(value, Tensor) and dist.get_rank() == 0 else []


def _local_bytes(value: Any) -> int:
    return sum(tensor.nbytes for tensor in _local_tensors(value))


def _is_finite(value: Any) -> bool:
    # minimum and maximum carry a NaN along, in one pass and without a copy of the table
    return all(
        bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())
        for tensor in _local_tensors(value)
        if tensor.is_floating_point() and tensor.numel()
    )


def _files_of(folder: Path, rank: int) -> list[Path]:
    """The files that a rank hashes: its shards; rank 0 also what belongs to no rank."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.startswith(f"__{rank}_") or (rank == 0 and not path.name.startswith("__"))
    ]


def _free(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    usage = os.statvfs(folder)
    return f"{usage.f_bavail * usage.f_frsize / 1e9:.3f} GB free"
