"""Whole tensors of a checkpoint in this process's memory, without the model that they belong to."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from ranker.checkpoint import explain
from ranker.checkpoint_files import CheckpointError
from ranker.safe_storage import TensorsOnlyLoadPlanner, TensorsOnlyReader


def tensor_shapes(path: Path) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Returns type and shape of each tensor of a checkpoint by key, without reading any.

    Raises:
        CheckpointError: it has entries that are no tensors, or no readable metadata.
    """
    try:
        entries = TensorsOnlyReader(path).read_metadata().state_dict_metadata
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} cannot be read ({explain(error)})") from error
    shapes = {}
    for key, entry in sorted(entries.items()):
        if not isinstance(entry, TensorStorageMetadata):
            raise CheckpointError(f"{path} cannot be read (refused: {key} is no tensor)")
        shapes[key] = (entry.properties.dtype, entry.size)
    return shapes


def read_tensors(path: Path, keys: Iterable[str]) -> dict[str, Tensor]:
    """Reads some tensors of a checkpoint, each as a whole.

    Raises:
        CheckpointError: the files are damaged.
    """
    shapes = tensor_shapes(path)
    tensors = {key: torch.empty(shapes[key][1], dtype=shapes[key][0]) for key in keys}
    try:
        with warnings.catch_warnings():
            # it says that this is one process, which is what no_dist means
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(
                tensors,
                storage_reader=TensorsOnlyReader(path),
                planner=TensorsOnlyLoadPlanner(),
                no_dist=True,
            )
    except (CheckpointException, OSError, RuntimeError) as error:  # the first is no Exception
        raise CheckpointError(f"{path} cannot be read ({explain(error)})") from error
    return tensors
