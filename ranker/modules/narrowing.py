"""Batches with fewer ids: distinct ones for the search, and only the behaviours it found."""

import dataclasses
from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from ranker_data.batch import BEHAVIOR_PREFIX, RankingBatch
from ranker_kernels.numbering import distinct, number_flags


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
            # a slice is filled by the device; one element would be copied from the host
            counts[:1] = len(ids)
        values[key], lengths[key] = ids, counts
    return _join(values, lengths), rows


def keep_behaviors(batch: RankingBatch, keep: Tensor) -> tuple[RankingBatch, Tensor]:
    """Leaves behaviours out of a batch.

    Args:
        batch: with N behaviours.
        keep: bool [N].

    Returns:
        The batch of the others, whose windows have those that they had, less what was left out;
        and [N + 1] the place of each behaviour among them (of the next one, where it is left out).
    """
    rows, place = number_flags(keep)
    ends = place[_ends(batch)]
    counts = ends.diff()
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


def _ends(batch: RankingBatch) -> Tensor:
    """Returns 0 and where the behaviours of each user end, [U + 1]: they are sorted by user."""
    ends = batch.windows.new_zeros(batch.num_users + 1)
    ends.scatter_reduce_(0, batch.user_of + 1, batch.windows[:, 1], "amax")
    return ends.cummax(0).values


def _join(values: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> KeyedJaggedTensor:
    return KeyedJaggedTensor(
        keys=list(values),
        values=torch.cat(list(values.values())),
        lengths=torch.cat(list(lengths.values())),
        # known here, else TorchRec waits for the device to tell
        length_per_key=[len(ids) for ids in values.values()],
    )
