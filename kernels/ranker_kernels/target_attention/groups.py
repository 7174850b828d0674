"""Candidates that share reads, and how the behaviours they look at are spread over programs."""

from typing import NamedTuple

import torch
from torch import Tensor

from ranker_kernels.schedule import Items, cut_into_pieces, cut_runs, sort_windows


class Groups(NamedTuple):
    """Groups of candidates.

    Attributes:
        order: int64 `[C']`, candidates that have something to look at, group by group.
        begins, ends: int64 `[G]`, each group's range of `order`.
        lows: int64 `[G]`, first behaviour of each group, ascending.
        highs: int64 `[G]`, one behind its last.
        items: pieces of the groups' ranges.
    """

    order: Tensor
    begins: Tensor
    ends: Tensor
    lows: Tensor
    highs: Tensor
    items: Items


def chain_windows(windows: Tensor, *, size: int, piece: int) -> Groups:
    """Groups up to `size` candidates whose windows `[C, 2]` form a chain, each touching the last.

    A group walks over the union of its windows, which is never more than their lengths together.
    """
    order = sort_windows(windows, longer_than=0)
    lows, highs = windows[order].unbind(1)
    fresh = torch.ones(len(order), dtype=torch.bool, device=windows.device)
    if len(order):
        fresh[1:] = lows[1:] >= highs.cummax(0).values[:-1]
    begins, ends = cut_runs(fresh, size)
    owner = torch.repeat_interleave(ends - begins, output_size=len(order))
    reached = torch.zeros_like(begins).scatter_reduce_(0, owner, highs, "amax")
    first = lows[begins]
    return Groups(order, begins, ends, first, reached, cut_into_pieces(reached - first, piece))


def single_candidates(index: Tensor, *, piece: int) -> Groups:
    """Makes each row of a selection `[C, K]` a group that walks over its K places.

    Nothing here waits for the device.
    """
    count, length = index.shape
    order = torch.arange(count, device=index.device)
    pieces = -(-length // piece)
    item = torch.arange(count * pieces, device=index.device)
    items = Items(
        item // max(1, pieces),
        item % max(1, pieces),
        torch.arange(count + 1, device=index.device) * pieces,
    )
    highs = order.new_full((count,), length)
    return Groups(order, order, order + 1, torch.zeros_like(order), highs, items)
