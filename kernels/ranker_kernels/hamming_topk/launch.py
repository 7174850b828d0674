"""How the Triton kernels of the Hamming search are launched."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ranker_kernels.hamming_topk import triton_kernels
from ranker_kernels.schedule import cut_into_pieces, cut_runs, sort_windows
from ranker_kernels.search_topk.blocked import select_short

SELECT_TILE = 1024
WARPS = 4


@dataclass(frozen=True)
class Tiles:
    """Candidates of a group, and codes that they are compared with at a time."""

    rows: int
    keys: int


TILES = Tiles(rows=16, keys=128)


@dataclass(frozen=True)
class Groups:
    """Candidates with the same window, side by side; each is a range `[begin, end)` of candidates.

    Attributes:
        order: `[C']` candidates that have something to select, sorted by window.
        windows: `[C', 2]` theirs.
        begins, ends: `[G]` positions in `order`.
        tile_groups, tile_places: `[T]` group of each tile of keys, and its place in the window.
    """

    order: Tensor
    windows: Tensor
    begins: Tensor
    ends: Tensor
    tile_groups: Tensor
    tile_places: Tensor


def group_candidates(windows: Tensor, *, longer_than: int, size: int, tile: int) -> Groups:
    """Puts candidates with the same window into groups of at most `size`."""
    order = sort_windows(windows, longer_than=longer_than)
    seen = windows[order]
    fresh = torch.ones(len(order), dtype=torch.bool, device=windows.device)
    fresh[1:] = (seen[1:] != seen[:-1]).any(dim=1)
    begins, ends = cut_runs(fresh, size)
    lengths = seen[begins, 1] - seen[begins, 0]
    pieces = cut_into_pieces(lengths, tile)
    return Groups(order, seen, begins, ends, pieces.owners, pieces.places)


def search(query: Tensor, keys: Tensor, windows: Tensor, k: int, tiles: Tiles = TILES) -> Tensor:
    """Computes what `blocked.search` does."""
    index = select_short(windows, k)
    groups = group_candidates(windows, longer_than=k, size=tiles.rows, tile=tiles.keys)
    if not len(groups.order):
        return index
    lengths = groups.windows[:, 1] - groups.windows[:, 0]
    ends = lengths.cumsum(0)
    scores = torch.empty(int(ends[-1]), dtype=torch.float32, device=query.device)
    triton_kernels.closeness[(len(groups.tile_groups),)](
        query[groups.order].contiguous(),
        keys.contiguous(),
        groups.windows.contiguous(),
        ends - lengths,
        groups.begins,
        groups.ends,
        groups.tile_groups,
        groups.tile_places,
        scores,
        WORDS=query.shape[1],
        ROWS=tiles.rows,
        TILE=tiles.keys,
        num_warps=WARPS,
    )
    positions, _ = select_rows(scores, ends - lengths, lengths, k)
    # rows begin with the latest
    index[groups.order] = groups.windows[:, 1:] - 1 - positions.flip(1)
    return index


def select_rows(
    scores: Tensor, row_starts: Tensor, lengths: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Returns the positions `[R, k]` of the k highest of each row, ascending, and their scores.

    Args:
        scores: float32, all rows.
        row_starts: `[R]` where each begins.
        lengths: `[R]` how many each has, at least k.
        k: how many.
    """
    positions = lengths.new_empty(len(lengths), k)
    values = scores.new_empty(len(lengths), k)
    triton_kernels.select[(len(lengths),)](
        scores, row_starts, lengths, positions, values, k, TILE=SELECT_TILE, num_warps=WARPS
    )
    return positions, values
