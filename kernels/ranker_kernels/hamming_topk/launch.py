"""How the Triton kernels of the Hamming search are launched."""

import torch
from torch import Tensor

from ranker_kernels.hamming_topk import triton_kernels
from ranker_kernels.search_topk.blocked import select_short
from ranker_kernels.search_topk.launch import Tiles, group_candidates, select_rows

TILES = Tiles(rows=16, keys=128)
WARPS = 4


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
