"""Candidates that look at nearly the same behaviours, put together so that they share the reads."""

from typing import NamedTuple

import torch
from torch import Tensor

from ranker_kernels.search_topk.distinct import DistinctRows

# a tile may be this much longer than the shortest window in it: what is scored in vain stays small
_MAX_STRETCH = 1.25
# keys held at once: with a width of 64, 1 MB in float32, which stays in a core's cache
_MAX_KEYS = 4096


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
    tile: Tile, query: Tensor, keys: DistinctRows, bias: Tensor | None, windows: Tensor
) -> Tensor:
    """Scores a tile.

    Args:
        tile: g candidates and n behaviours.
        query: `[C, H, D]`.
        keys: N rows of width D; products are taken in the precision of the query.
        bias: `[H, N]` or None.
        windows: `[C, 2]`.

    Returns:
        `[g, H, n]`, -inf outside a candidate's own window.
    """
    rows = query[tile.candidates]
    flat = rows.flatten(0, 1)
    scores = flat.new_empty(flat.shape[0], tile.length)
    for begin in range(tile.begin, tile.end, _MAX_KEYS):
        end = min(begin + _MAX_KEYS, tile.end)
        block = keys.between(begin, end).to(query.dtype)
        torch.mm(flat, block.T, out=scores[:, begin - tile.begin : end - tile.begin])
    scores = scores.view(*rows.shape[:2], tile.length)
    if bias is not None:
        scores += bias[:, tile.begin : tile.end]
    if not tile.uniform:
        begins, ends = windows[tile.candidates].sub(tile.begin).unsqueeze(1).unbind(2)
        position = torch.arange(tile.length, device=windows.device)
        outside = (position < begins) | (position >= ends)
        scores.masked_fill_(outside.unsqueeze(1), -torch.inf)
    return scores
