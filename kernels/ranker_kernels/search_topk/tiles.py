"""Candidates that look at nearly the same behaviours, put together so that they share the reads."""

from typing import NamedTuple

import torch
from torch import Tensor

# a tile may be this much longer than the shortest window in it: what is scored in vain stays small
_MAX_STRETCH = 1.25


class Tile(NamedTuple):
    """Some candidates and the range of behaviours that covers their windows."""

    candidates: list[int]
    begin: int
    end: int
    uniform: bool  # all windows are the whole range

    @property
    def length(self) -> int:
        """The number of behaviours in the range."""
        return self.end - self.begin


def build_tiles(windows: Tensor, *, longer_than: int, heads: int, max_scores: int) -> list[Tile]:
    """Covers all windows that are longer than `longer_than`, in the order of their beginnings.

    Args:
        windows: int64 `[C, 2]`.
        longer_than: shorter windows are left out.
        heads: H, scores of each pair of candidate and behaviour.
        max_scores: a tile of several candidates has at most this many scores.
    """
    ranges = [(b, e, c) for c, (b, e) in enumerate(windows.tolist()) if e - b > longer_than]
    ranges.sort()
    tiles: list[Tile] = []
    shortest = 0
    for begin, end, candidate in ranges:
        shortest = min(shortest, end - begin)
        if tiles:
            last = tiles[-1]
            # sorted by begin: the tile begins first
            joined = max(last.end, end) - last.begin
            num_scores = (len(last.candidates) + 1) * heads * joined
            if joined <= _MAX_STRETCH * shortest and num_scores <= max_scores:
                uniform = last.uniform and (begin, end) == (last.begin, last.end)
                last.candidates.append(candidate)
                tiles[-1] = last._replace(end=last.begin + joined, uniform=uniform)
                continue
        tiles.append(Tile([candidate], begin, end, uniform=True))
        shortest = end - begin
    return tiles


def score_tile(
    tile: Tile, query: Tensor, keys: Tensor, bias: Tensor | None, windows: Tensor
) -> Tensor:
    """Scores a tile.

    Args:
        tile: g candidates and n behaviours.
        query: `[C, H, D]`.
        keys: `[N, D]`, in the precision of the products.
        bias: `[N, H]` or None.
        windows: `[C, 2]`.

    Returns:
        `[g, H, n]`, -inf outside a candidate's own window.
    """
    rows = query[tile.candidates]
    products = rows.flatten(0, 1) @ keys[tile.begin : tile.end].to(query.dtype).T
    scores = products.view(*rows.shape[:2], tile.length)
    if bias is not None:
        scores += bias[tile.begin : tile.end].to(query.dtype).T
    if not tile.uniform:
        begin, end = windows[tile.candidates].sub(tile.begin).unsqueeze(1).unbind(2)
        position = torch.arange(tile.length, device=windows.device)
        outside = (position < begin) | (position >= end)
        scores.masked_fill_(outside.unsqueeze(1), -torch.inf)
    return scores
