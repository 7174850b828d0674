"""Cuts blocks into batches of tensors, without copying."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from ranker_data.batch import RankingBatch
from ranker_data.batch_keys import batch_keys
from ranker_data.block import Block
from ranker_data.columns import Array
from ranker_data.schema import Schema


class BlockCutter:
    """Cuts the blocks of one schema.

    Args:
        schema: of the data set.
    """

    def __init__(self, schema: Schema) -> None:
        keys = batch_keys(schema)
        self._keys = [key.name for key in keys]
        self._axis_of = {key.name: key.axis for key in keys}

    def __call__(self, block: Block) -> Iterator[RankingBatch]:
        """Yields the batches of a block; they share its memory."""
        candidates, users = _tensors(block.candidates), _tensors(block.users)
        behaviors, bags = _tensors(block.behaviors), _tensors(block.bags)
        values, lengths = torch.from_numpy(block.values), torch.from_numpy(block.lengths)
        bounds = {
            "candidate": block.candidate_bounds.tolist(),
            "user": block.user_bounds.tolist(),
            "behavior": block.behavior_bounds.tolist(),
        }
        lengths_per_key = np.diff(block.value_bounds).tolist()
        weights = {
            name: torch.split(array, [sizes[self._keys.index(name)] for sizes in lengths_per_key])
            for name, array in _tensors(block.weights).items()
        }
        value_bounds = block.value_bounds[:, [0, -1]].tolist()
        num_keys = len(self._keys)
        for t in range(block.num_batches):
            slices = {axis: slice(ends[t], ends[t + 1]) for axis, ends in bounds.items()}
            of_users = slices["user"]
            ids = KeyedJaggedTensor(
                keys=self._keys,
                values=values[slice(*value_bounds[t])],
                lengths=lengths[num_keys * of_users.start : num_keys * of_users.stop],
                stride=of_users.stop - of_users.start,
                length_per_key=lengths_per_key[t],
            )
            yield RankingBatch(
                ids=ids,
                bag_lengths={k: v[slices[self._axis_of[k]]] for k, v in bags.items()},
                bag_weights={name: parts[t] for name, parts in weights.items()},
                **{name: array[slices["candidate"]] for name, array in candidates.items()},
                **{name: array[slices["user"]] for name, array in users.items()},
                **{name: array[slices["behavior"]] for name, array in behaviors.items()},
            )


def _tensors(arrays: dict[str, Array]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
