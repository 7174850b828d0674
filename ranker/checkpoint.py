"""What a checkpoint holds, and how it is loaded on any world size and sharding plan.

Tensors go through torch.distributed.checkpoint, everything else is JSON. `checkpoint_writer` saves,
`checkpoint_files` knows the files.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torchrec.optim.keyed import KeyedOptimizer

from ranker.checkpoint_files import (
    CheckpointError,
    choose,
    first_line,
    newest_usable,
    read_state,
)
from ranker.distributed import agree, broadcast_from_main, gather_to_all
from ranker.safe_storage import TensorsOnlyLoadPlanner, TensorsOnlyReader

# keys named in an error; a model of another kind differs in hundreds
_MAX_NAMED_KEYS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainable:
    """What a checkpoint holds of the model.

    Attributes:
        model: under `DistributedModelParallel`; buffers count, such as multipliers of an objective.
        optimizer: of both halves.
        dense: its dense half, whose state exists only after the first step.
    """

    model: nn.Module
    optimizer: KeyedOptimizer
    dense: KeyedOptimizer

    def tensors(self) -> dict[str, Any]:
        """Returns the tensors to save, or to load into."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, tensors: Mapping[str, Any]) -> None:
        """Takes over what was loaded into `tensors()`."""
        self.model.load_state_dict(tensors["model"])
        self.optimizer.load_state_dict(tensors["optimizer"])


def load_checkpoint(path: Path, trainable: Trainable) -> dict[str, Any]:
    """Loads a checkpoint of any world size and sharding plan, and returns its JSON state.

    Raises:
        CheckpointError: files are missing or damaged, or the checkpoint belongs to another model;
            names the keys that are missing, unexpected or of another shape.
    """
    init_dense_state(trainable.dense)
    tensors = trainable.tensors()
    reader = TensorsOnlyReader(path)
    try:
        sizes = sizes_on_all_ranks(flatten_state_dict(tensors)[0])
        problem = compare_content(sizes, reader.read_metadata().state_dict_metadata)
        if problem:
            raise CheckpointError(problem)
        load(tensors, storage_reader=reader, planner=TensorsOnlyLoadPlanner())
        state = read_state(path)
    # the first is no Exception
    except (CheckpointException, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit this model ({explain(error)}); use the config it was trained "
            "with, or take what fits into a run of another name with +warm_start.run=<this run>"
        ) from error
    trainable.load(tensors)
    return state


def compare_content(sizes: Mapping[str, torch.Size], saved: Mapping[str, Any]) -> str:
    """Returns which keys of a checkpoint do not fit, by kind; "" if all do.

    Args:
        sizes: of the tensors to load into, by key.
        saved: entries of the checkpoint's metadata.
    """
    kinds = (
        ("missing in the checkpoint", sorted(sizes.keys() - saved.keys())),
        ("unknown to the model", sorted(saved.keys() - sizes.keys())),
        (
            "of another shape",
            [
                f"{key}: saved {list(size)}, model {list(sizes[key])}"
                for key in sorted(sizes.keys() & saved.keys())
                if (size := saved_size(saved[key])) is not None and size != sizes[key]
            ],
        ),
    )
    parts = []
    for what, keys in kinds:
        if keys:
            shown = ", ".join(keys[:_MAX_NAMED_KEYS])
            rest = f" and {len(keys) - _MAX_NAMED_KEYS} more" if len(keys) > _MAX_NAMED_KEYS else ""
            parts.append(f"{what}: {shown}{rest}")
    return "; ".join(parts)


def sizes_on_all_ranks(tensors: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Returns the sizes of tensors by key; a rank does not know the state of others' tables."""
    own = {key: value.size() for key, value in tensors.items()}
    return {key: size for rank in gather_to_all(own) for key, size in rank.items()}


def saved_size(entry: Any) -> torch.Size | None:
    """Returns the size of a saved tensor, None for an entry that is none."""
    return entry.size if isinstance(entry, TensorStorageMetadata) else None


def find_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Returns the newest whole checkpoint, and what was wrong with newer ones.

    Every rank calls it; rank 0 reads.

    Raises:
        CheckpointError: there are checkpoints, but every one is damaged: never a silent fresh
        start.
    """
    found: list[tuple[Path | None, list[str]]] = [(None, [])]

    def find_on_main() -> None:
        if dist.get_rank() == 0:
            found[0] = newest_usable(folder)

    agree(find_on_main, CheckpointError)
    path, problems = broadcast_from_main(found[0])
    return path, problems


def choose_checkpoint(folder: Path, wanted: str | int) -> Path:
    """Returns the checkpoint of a run that "best", "last" or a step means; every rank calls it.

    Raises:
        CheckpointError: the run has no such checkpoint, or it is damaged.
    """
    found: list[Path | None] = [None]

    def choose_on_main() -> None:
        if dist.get_rank() == 0:
            found[0] = choose(folder, wanted)

    agree(choose_on_main, CheckpointError)
    path: Path = broadcast_from_main(found[0])
    return path


def init_dense_state(optimizer: KeyedOptimizer) -> None:
    """Makes Adam's moments, which otherwise come into being at the first step.

    A load can only fill what exists.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in optimizer.params.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def explain(error: BaseException) -> str:
    """Returns in one line why a save or load failed."""
    if isinstance(error, CheckpointException) and error.failures:
        # its own text is a traceback of every rank
        error = next(iter(error.failures.values()))[0]
    return first_line(error)
