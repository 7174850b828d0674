"""The search tile by tile, with NumPy's vectorised popcount and selection on CPU."""

import numpy as np
import torch
from torch import Tensor

from ranker_kernels.search_topk.blocked import select_short
from ranker_kernels.search_topk.tiles import Tile, build_tiles

# distances held at once, unless one candidate has more
MAX_DISTANCES = 1 << 20


def search(query: Tensor, keys: Tensor, windows: Tensor, k: int) -> Tensor:
    """Selects up to k behaviours of every window; see `hamming_topk`."""
    index = select_short(windows, k)
    for tile in build_tiles(windows, longer_than=k, heads=1, max_scores=MAX_DISTANCES):
        differing = query[tile.candidates].unsqueeze(1) ^ keys[tile.begin : tile.end]
        order = _order(popcount(differing).sum(dim=2), tile, windows)
        index[tile.candidates] = _smallest(order, k) + tile.begin
    return index


def _order(distance: Tensor, tile: Tile, windows: Tensor) -> Tensor:
    """Returns different numbers `[g, n]` that rank by distance, then the latest first.

    What lies outside a candidate's own window comes last.
    """
    position = torch.arange(tile.length, device=windows.device)
    order = distance * tile.length + (tile.length - 1 - position)
    if not tile.uniform:
        begins, ends = windows[tile.candidates].sub(tile.begin).unsqueeze(1).unbind(2)
        outside = (position < begins) | (position >= ends)
        order = order.masked_fill_(outside, torch.iinfo(torch.int64).max)
    return order


def _smallest(order: Tensor, k: int) -> Tensor:
    """Returns the places `[g, k]` of the k smallest of each row, ascending."""
    places = np.argpartition(order.numpy(), k - 1, axis=1)[:, :k]
    return torch.from_numpy(np.sort(places, axis=1))


def popcount(words: Tensor) -> Tensor:
    """Returns the number of bits that are set in each int64."""
    return torch.from_numpy(np.bitwise_count(words.numpy().view(np.uint64)).astype(np.int64))
