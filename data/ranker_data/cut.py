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
        # [T][keys] number of ids
        key_sizes = np.diff(block.value_bounds).tolist()
        users_of = np.diff(block.user_bounds).tolist()
        sizes = {
            "candidate": np.diff(block.candidate_bounds).tolist(),
            "user": users_of,
            "behavior": np.diff(block.behavior_bounds).tolist(),
        }
        bags = {k: _split(array, sizes[self._axis_of[k]]) for k, array in block.bags.items()}
        weights = {
            name: _split(array, [of_keys[self._keys.index(name)] for of_keys in key_sizes])
            for name, array in block.weights.items()
        }
        values = _split(block.values, [sum(of_keys) for of_keys in key_sizes])
        lengths = _split(block.lengths, [len(self._keys) * count for count in users_of])
        columns = {
            name: _split(array, sizes[axis])
            for axis, arrays in (
                ("candidate", block.candidates),
                ("user", block.users),
                ("behavior", block.behaviors),
            )
            for name, array in arrays.items()
        }
        for t in range(block.num_batches):
            ids = KeyedJaggedTensor(
                keys=self._keys,
                values=values[t],
                lengths=lengths[t],
                stride=users_of[t],
                length_per_key=key_sizes[t],
            )
            yield RankingBatch(
                ids=ids,
                bag_lengths={name: parts[t] for name, parts in bags.items()},
                bag_weights={name: parts[t] for name, parts in weights.items()},
                **{name: parts[t] for name, parts in columns.items()},
            )


def _split(array: Array, sizes: list[int]) -> tuple[Tensor, ...]:
    return torch.split(torch.from_numpy(array), sizes)
