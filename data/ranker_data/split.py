"""Splits a batch into smaller ones with a bounded number of behaviours.

Windows of a user begin and end in the order of time, and so do the behaviours: consecutive
candidates look into one stretch of the behaviour axis. Every part of a batch is therefore a slice
of each of its axes. Only the lengths of a user whose candidates fall into two parts are new; the
behaviours that both look at are in both.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from ranker_data.batch import RankingBatch
from ranker_data.batch_keys import BatchKey, batch_keys
from ranker_data.schema import Schema


def find_cuts(batch: RankingBatch, max_behaviors: int) -> list[int]:
    """Returns the first candidate of each part, and the number of candidates.

    Each part is as long as the budget allows.

    Args:
        batch: to split; no window is longer than the budget.
        max_behaviors: the budget of a part.
    """
    begins, ends = batch.windows[:, 0].tolist(), batch.windows[:, 1].tolist()
    cuts = [0]
    for candidate, end in enumerate(ends):
        if end - begins[cuts[-1]] > max_behaviors:
            cuts.append(candidate)
        assert end - begins[cuts[-1]] <= max_behaviors
    return [*cuts, len(ends)]


def add_cuts(cuts: list[int], count: int) -> list[int]:
    """Returns more cuts, for `count` parts where there are rows enough: the longest are halved."""
    cuts = list(cuts)
    while len(cuts) - 1 < count:
        length, i = max((end - begin, -i) for i, (begin, end) in enumerate(pairwise(cuts)))
        if length == 1:
            break
        cuts.insert(1 - i, cuts[-i] + length // 2)
    return cuts


class BatchSplitter:
    """Splits the batches of one schema.

    Args:
        schema: of the data set.
    """

    def __init__(self, schema: Schema) -> None:
        self._keys = batch_keys(schema)

    def __call__(self, batch: RankingBatch, cuts: list[int], count: int) -> list[RankingBatch]:
        """Returns `count` batches.

        Args:
            batch: to split.
            cuts: first candidate of each part, and the number of candidates.
            count: parts, at least as many as the cuts make. The further ones repeat the last
                candidate with weight 0 and sample id -1.
        """
        parts = [self._part(batch, begin, end) for begin, end in pairwise(cuts)]
        assert len(parts) <= count
        for _ in range(count - len(parts)):
            padding = self._part(batch, cuts[-1] - 1, cuts[-1])
            padding.weights = torch.zeros_like(padding.weights)
            padding.sample_id = torch.full_like(padding.sample_id, -1)
            parts.append(padding)
        return parts

    def _part(self, batch: RankingBatch, begin: int, end: int) -> RankingBatch:
        candidates = slice(begin, end)
        first_user = int(batch.user_of[begin])
        users = slice(first_user, int(batch.user_of[end - 1]) + 1)
        windows = batch.windows[candidates]
        behaviors = slice(int(windows[0, 0]), int(windows[-1, 1]))
        slices = {"user": users, "behavior": behaviors, "candidate": candidates}
        user_of = batch.user_of[candidates] - first_user
        lengths = self._lengths(user_of, windows, users.stop - users.start)

        per_key = batch.ids.length_per_key()
        starts = torch.tensor([0, *per_key]).cumsum(0).tolist()
        ids, all_lengths, bags, weights = [], [], {}, {}
        for key, start in zip(self._keys, starts, strict=False):
            rows = slices[key.axis]
            values, of_users = slice(rows.start, rows.stop), lengths[key.axis]
            if key.name in batch.bag_lengths:
                values, of_users = _bag_slices(batch, key, rows, of_users)
                bags[key.name] = batch.bag_lengths[key.name][rows]
            if key.name in batch.bag_weights:
                weights[key.name] = batch.bag_weights[key.name][values]
            ids.append(batch.ids.values()[start + values.start : start + values.stop])
            all_lengths.append(of_users)
        return RankingBatch(
            ids=KeyedJaggedTensor(
                keys=[key.name for key in self._keys],
                values=torch.cat(ids),
                lengths=torch.cat(all_lengths),
                stride=users.stop - users.start,
                length_per_key=[len(values) for values in ids],
            ),
            bag_lengths=bags,
            bag_weights=weights,
            user_dense=batch.user_dense[users],
            behavior_dense=batch.behavior_dense[behaviors],
            behavior_time=batch.behavior_time[behaviors],
            user_of=user_of,
            windows=windows - behaviors.start,
            **{name: getattr(batch, name)[candidates] for name in _CANDIDATE_TENSORS},
        )

    def _lengths(self, user_of: Tensor, windows: Tensor, num_users: int) -> dict[str, Tensor]:
        """Returns how many entries of each axis each user of a part has."""
        counts = torch.bincount(user_of, minlength=num_users)
        last = counts.cumsum(0) - 1
        first = last + 1 - counts
        return {
            "user": torch.ones_like(counts),
            "behavior": windows[last, 1] - windows[first, 0],
            "candidate": counts,
        }


_CANDIDATE_TENSORS = (
    "candidate_dense",
    "time",
    "labels",
    "label_mask",
    "weights",
    "truths",
    "sample_id",
    "user",
    "request",
    "domain",
)


def _bag_slices(
    batch: RankingBatch, key: BatchKey, rows: slice, counts: Tensor
) -> tuple[slice, Tensor]:
    """Returns the values of some rows of a multi-valued key, and how many each user has."""
    offsets = torch.cat([counts.new_zeros(1), batch.bag_lengths[key.name].cumsum(0)])
    ends = rows.start + torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return slice(int(offsets[rows.start]), int(offsets[rows.stop])), offsets[ends].diff()
