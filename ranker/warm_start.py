"""Begins a run with what fits out of another run's checkpoint, and says exactly what that was.

A tensor is taken if the checkpoint has one of the same key and shape. A table may have grown: its
first rows are taken, the new ones keep their initial values, so ids must not have been renumbered.
Ids that are hashed are, by another number of rows: such a table begins afresh.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan
from torch.distributed.checkpoint.planner_helpers import (
    _create_chunk_list,
    create_read_items_for_chunk_list,
)
from torch.distributed.checkpoint.state_dict_loader import load

from ranker.checkpoint import (
    Trainable,
    choose_checkpoint,
    explain,
    init_dense_state,
    saved_size,
    sizes_on_all_ranks,
)
from ranker.checkpoint_files import CheckpointError
from ranker.run_dir import RunDir
from ranker.safe_storage import TensorsOnlyLoadPlanner, TensorsOnlyReader

# part of the key of every table and of its optimizer state
_TABLES = ".embeddings."


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStartOptions:
    """What a new run begins with.

    Attributes:
        run: directory of the run to take weights from.
        checkpoint: "best" (by that run's monitored metric), "last", or a step.
        optimizer: take the optimizers' state as well.
    """

    run: str
    checkpoint: str | int = "best"
    optimizer: bool = False


@dataclasses.dataclass(frozen=True)
class Match:
    """What of a checkpoint fits a model, by key.

    Attributes:
        same: taken whole.
        grown: tables whose first rows are taken, with rows before and after.
        fresh: of the model, not taken because the checkpoint has none or one of another shape.
        unused: of the checkpoint.
    """

    same: tuple[str, ...]
    grown: Mapping[str, tuple[int, int]]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def describe(self) -> list[str]:
        """Returns what is taken and what is not, a line each."""
        lines = [f"took {len(self.same)} tensors as they are"]
        lines += [
            f"took the first {before} rows of {key}, which has {after} now"
            for key, (before, after) in self.grown.items()
        ]
        lines += [f"begins afresh: {key}" for key in self.fresh]
        lines += [f"not used: {key}" for key in self.unused]
        return lines


def warm_start(
    options: WarmStartOptions, trainable: Trainable, *, hashed: Collection[str]
) -> list[str]:
    """Loads what fits into a new model; every rank calls it.

    Args:
        options: what to take.
        trainable: the new model and its optimizers.
        hashed: names of the tables whose row for an id depends on the number of rows.

    Returns:
        What was taken and what was not, a line each.

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged, or nothing of it fits.
    """
    path = choose_checkpoint(RunDir(Path(options.run)).checkpoints, options.checkpoint)
    if options.optimizer:
        init_dense_state(trainable.dense)
    tensors = trainable.tensors()
    prefixes = ("model.", "optimizer.") if options.optimizer else ("model.",)
    flat = {
        key: value
        for key, value in flatten_state_dict(tensors)[0].items()
        if key.startswith(prefixes)
    }
    try:
        saved = TensorsOnlyReader(path).read_metadata().state_dict_metadata
        sizes = {key: saved_size(entry) for key, entry in saved.items() if key.startswith(prefixes)}
        match = match_tensors(sizes_on_all_ranks(flat), sizes, hashed)
        if not match.same and not match.grown:
            raise CheckpointError(f"warm_start: no tensor of {path} fits this model")
        chosen = {key: flat[key] for key in (*match.same, *match.grown) if key in flat}
        load(chosen, storage_reader=TensorsOnlyReader(path), planner=_OverlapLoadPlanner())
    except (CheckpointException, OSError, RuntimeError) as error:  # the first is no Exception
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"warm_start: {path} cannot be read ({explain(error)})") from error
    trainable.model.load_state_dict(tensors["model"])
    if options.optimizer:
        trainable.optimizer.load_state_dict(tensors["optimizer"])
    return [f"warm start from {path}", *(f"  {line}" for line in match.describe())]


def match_tensors(
    sizes: Mapping[str, torch.Size],
    saved: Mapping[str, torch.Size | None],
    hashed: Collection[str],
) -> Match:
    """Compares the sizes that a model's tensors have with those of a checkpoint.

    Tables named in `hashed` never grow.
    """
    same, fresh = [], []
    grown: dict[str, tuple[int, int]] = {}
    for key, now in sorted(sizes.items()):
        size = saved.get(key)
        if size is not None and size == now:
            same.append(key)
        elif size is not None and _has_grown(key, size, now) and _table_of(key) not in hashed:
            grown[key] = (size[0], now[0])
        else:
            fresh.append(key)
    taken = {*same, *grown}
    unused = tuple(key for key in sorted(saved) if key not in taken and key not in sizes)
    return Match(tuple(same), grown, tuple(fresh), unused)


def _table_of(key: str) -> str:
    return key.rpartition(_TABLES)[2].partition(".")[0]


def _has_grown(key: str, size: Sequence[int], now: Sequence[int]) -> bool:
    # more rows of a table are more ids; more rows of a layer are another layer
    return _TABLES in key and len(size) == len(now) and size[0] < now[0] and size[1:] == now[1:]


class _OverlapLoadPlanner(TensorsOnlyLoadPlanner):
    """Reads whatever part of a tensor the checkpoint has."""

    def create_local_plan(self) -> LoadPlan:
        """Plans to read the overlap of each local shard with what was saved."""
        assert self.metadata is not None
        requests = []
        for key, value in self.state_dict.items():
            entry = self.metadata.state_dict_metadata[key]
            assert isinstance(entry, TensorStorageMetadata)
            chunks = _create_chunk_list(value)
            requests += create_read_items_for_chunk_list(key, entry, chunks)
        return LoadPlan(requests)
