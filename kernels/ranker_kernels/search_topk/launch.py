"""How the Triton kernels of the search are launched."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ranker_kernels.schedule import cut_into_pieces, cut_runs, sort_windows
from ranker_kernels.search_topk import triton_kernels
from ranker_kernels.search_topk.blocked import select_short
from ranker_kernels.search_topk.merge import order_ranked, round_robin
from ranker_kernels.triton_kernels import choose_dot_type, tile_side

SELECT_TILE = 1024
WARPS = 4


@dataclass(frozen=True)
class Tiles:
    """Sides of a product: rows (candidates of a group times heads) and keys."""

    rows: int
    keys: int


def choose_tiles(dtype: torch.dtype) -> Tiles:
    """Returns the largest tiles that do not spill registers (sm_90, width 64)."""
    return Tiles(16, 16) if dtype == torch.float32 else Tiles(64, 128)


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


def search(
    query: Tensor, keys: Tensor, bias: Tensor | None, windows: Tensor, k: int, tiles: Tiles
) -> Tensor:
    """Computes what `blocked.search` does; keys are `[N, D]`."""
    num_heads, dim = query.shape[1:]
    index = select_short(windows, k)
    rows = max(tiles.rows, tile_side(num_heads))
    groups = group_candidates(windows, longer_than=k, size=rows // num_heads, tile=tiles.keys)
    if not len(groups.order):
        return index
    lengths = groups.windows[:, 1] - groups.windows[:, 0]
    ends = (lengths * num_heads).cumsum(0)
    starts = ends - lengths * num_heads
    scores = torch.empty(int(ends[-1]), dtype=torch.float32, device=query.device)
    triton_kernels.score[(len(groups.tile_groups),)](
        query[groups.order].contiguous(),
        keys.contiguous(),
        keys if bias is None else bias.contiguous(),
        groups.windows.contiguous(),
        starts,
        groups.begins,
        groups.ends,
        groups.tile_groups,
        groups.tile_places,
        scores,
        HEADS=num_heads,
        DIM=dim,
        D=tile_side(dim),
        ROWS=rows,
        TILE=tiles.keys,
        HAS_BIAS=bias is not None,
        DOT=choose_dot_type(query, keys),
        num_warps=WARPS,
    )
    head = torch.arange(num_heads, device=query.device)
    row_starts = (starts.unsqueeze(1) + head * lengths.unsqueeze(1)).flatten()
    positions, values = select_rows(scores, row_starts, lengths.repeat_interleave(num_heads), k)
    ranked = order_ranked(values, positions).view(-1, num_heads, k)
    index[groups.order] = round_robin(ranked) + groups.windows[:, :1]
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
