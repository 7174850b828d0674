"""Keeps the behaviours of a batch within a budget, on all ranks alike."""

import torch
import torch.distributed as dist

from ranker.distributed import world_size
from ranker_data.batch import RankingBatch
from ranker_data.schema import Schema
from ranker_data.split import BatchSplitter, add_cuts, find_cuts


class BehaviorBudget:
    """Splits a batch that has too many behaviours into micro-batches.

    Every rank gets as many as the one that needs the most, because each forward pass of a sharded
    model is a collective.

    Args:
        schema: of the data set.
        max_behaviors: of one batch on one rank; None splits nothing.
    """

    def __init__(self, schema: Schema, max_behaviors: int | None) -> None:
        self._split = BatchSplitter(schema)
        self._max_behaviors = max_behaviors

    def __call__(self, batch: RankingBatch) -> list[RankingBatch]:
        """Returns the micro-batches of a batch on the host; every rank calls it."""
        if self._max_behaviors is None:
            return [batch]
        cuts = find_cuts(batch, self._max_behaviors)
        count = torch.tensor(len(cuts) - 1)
        if world_size() > 1:
            dist.all_reduce(count, dist.ReduceOp.MAX)
        if int(count) == 1:
            return [batch]
        return self._split(batch, add_cuts(cuts, int(count)), int(count))
