"""Consecutive batches in flat arrays: what is built at once, and what a worker sends.

Building many batches at once costs hardly more calls than building one. All arrays have the rows of
one batch behind those of the other, so that a batch is a slice of each.
"""

import dataclasses

from ranker_data.columns import Array, IntArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """T consecutive batches of one rank; axes as in `RankingBatch`.

    Attributes:
        candidates: arrays with C entries in each batch.
        users: arrays with U entries in each batch.
        behaviors: arrays with N entries in each batch.
        bags: for each multi-valued key, the number of ids of each user, behaviour or candidate.
        weights: for each weighted key, the weights of its ids.
        values: ids of each batch, key after key.
        lengths: of each batch [number of keys, U] number of ids.
        candidate_bounds: [T + 1] where each batch begins in `candidates`, and the end.
        user_bounds: [T + 1] likewise in `users`.
        behavior_bounds: [T + 1] likewise in `behaviors`.
        value_bounds: [T, number of keys + 1] where each key of each batch begins in `values`, and
            where the last one ends.
    """

    candidates: dict[str, Array]
    users: dict[str, Array]
    behaviors: dict[str, Array]
    bags: dict[str, Array]
    weights: dict[str, Array]
    values: IntArray
    lengths: IntArray
    candidate_bounds: IntArray
    user_bounds: IntArray
    behavior_bounds: IntArray
    value_bounds: IntArray

    @property
    def num_batches(self) -> int:
        """The number of batches, T."""
        return len(self.value_bounds)
