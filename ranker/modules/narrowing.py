"""Batches with fewer ids: distinct ones for the search, and only the behaviours it found."""

import dataclasses
from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from ranker_data.batch import BEHAVIOR_PREFIX, RankingBatch

# a table of flags over the ids pays as long as there are not many more ids than rows
_MAX_FLAGS_PER_ID = 16


def distinct_ids(
    batch: RankingBatch, keys: Collection[str]
) -> tuple[KeyedJaggedTensor, dict[str, Tensor]]:
    """Takes some keys of a batch, and each id of a single-valued behaviour field once.

    Args:
        batch: with N behaviours.
        keys: to keep; the others stay as keys without ids, since a sharded collection wants all.

    Returns:
        The ids, with distinct ones of behaviours given to the first user; and for each key that
        was made distinct the place [N] of every behaviour's id among them.
    """
    values: dict[str, Tensor] = {}
    lengths: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    for key in batch.ids.keys():  # noqa: SIM118 - a jagged tensor is no mapping
        jagged = batch.ids[key]
        ids, counts = jagged.values(), jagged.lengths()
        if key not in keys:
            ids, counts = ids[:0], torch.zeros_like(counts)
        elif key.startswith(BEHAVIOR_PREFIX) and key not in batch.bag_lengths:
            ids, rows[key] = distinct(ids)
            counts = torch.zeros_like(counts)
            counts[0] = len(ids)
        values[key], lengths[key] = ids, counts
    return _join(values, lengths), rows


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the distinct ids of [N], ascending, and the place [N] of each id among them."""
    low, high = map(int, ids.aminmax()) if len(ids) else (0, -1)
    size = high + 1
    if low < 0 or size > _MAX_FLAGS_PER_ID * len(ids):
        found, place = ids.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        return found, place
    flags = torch.zeros(size, dtype=torch.bool, device=ids.device)
    flags[ids] = True
    return flags.nonzero()[:, 0].to(ids.dtype), (flags.cumsum(0) - 1)[ids]


def keep_behaviors(batch: RankingBatch, keep: Tensor) -> tuple[RankingBatch, Tensor]:
    """Leaves behaviours out of a batch.

    Args:
        batch: with N behaviours.
        keep: bool [N].

    Returns:
        The batch of the others, whose windows have those that they had, less what was left out;
        and [N + 1] the place of each behaviour among them (of the next one, where it is left out).
    """
    rows = keep.nonzero()[:, 0]
    place = torch.nn.functional.pad(keep.cumsum(0), (1, 0))
    counts = torch.bincount(_owners(batch)[rows], minlength=batch.num_users)
    ends = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    values: dict[str, Tensor] = {}
    lengths: dict[str, Tensor] = {}
    bag_lengths, bag_weights = dict(batch.bag_lengths), dict(batch.bag_weights)
    for key in batch.ids.keys():  # noqa: SIM118 - a jagged tensor is no mapping
        jagged = batch.ids[key]
        values[key], lengths[key] = jagged.values(), jagged.lengths()
        if not key.startswith(BEHAVIOR_PREFIX):
            continue
        if key in bag_lengths:
            bags = bag_lengths[key]
            kept = torch.repeat_interleave(keep, bags)
            values[key] = values[key][kept]
            if key in bag_weights:
                bag_weights[key] = bag_weights[key][kept]
            bag_lengths[key] = bags[rows]
            sums = torch.nn.functional.pad(bag_lengths[key].cumsum(0), (1, 0))
            lengths[key] = sums[ends].diff().to(lengths[key].dtype)
        else:
            values[key] = values[key].index_select(0, rows)
            lengths[key] = counts.to(lengths[key].dtype)
    narrowed = dataclasses.replace(
        batch,
        ids=_join(values, lengths),
        bag_lengths=bag_lengths,
        bag_weights=bag_weights,
        behavior_dense=batch.behavior_dense.index_select(0, rows),
        behavior_time=batch.behavior_time.index_select(0, rows),
        windows=place[batch.windows],
    )
    return narrowed, place


def _owners(batch: RankingBatch) -> Tensor:
    """Returns the user row [N] of every behaviour: behaviours are sorted by user."""
    ends = torch.zeros(batch.num_users, dtype=torch.int64, device=batch.windows.device)
    ends = ends.scatter_reduce(0, batch.user_of, batch.windows[:, 1], "amax").cummax(0).values
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    return torch.repeat_interleave(counts, output_size=batch.num_behaviors)


def _join(values: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> KeyedJaggedTensor:
    return KeyedJaggedTensor(
        keys=list(values),
        values=torch.cat(list(values.values())),
        lengths=torch.cat(list(lengths.values())),
    )
