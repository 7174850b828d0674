"""The search in PyTorch, block by block: memory is bounded by a block or one candidate's scores."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ranker_kernels.search_topk.distinct import DistinctRows
from ranker_kernels.search_topk.merge import rank, round_robin
from ranker_kernels.search_topk.tiles import Tile, build_tiles, score_tile

# scores held at once, unless one candidate has more: 4 MB in float32
MAX_SCORES = 1 << 20


def search(
    query: Tensor, keys: DistinctRows, bias: Tensor | None, windows: Tensor, k: int
) -> Tensor:
    """Selects up to k behaviours of every window; see `search_topk`."""
    # products and sums in float32, whatever the precision of the operands
    query = query.float()
    bias = None if bias is None else bias.float().T.contiguous()
    index = select_short(windows, k)
    heads = query.shape[1]
    tiles = build_tiles(windows, longer_than=k, heads=heads, max_scores=MAX_SCORES)
    for block in _blocks(tiles, heads):
        candidates = [candidate for tile in block for candidate in tile.candidates]
        base = [tile.begin for tile in block for _ in tile.candidates]
        scores = _score(block, query, keys, bias, windows)
        ranked = rank(scores.flatten(0, 1), k).view(len(candidates), heads, k)
        chosen = round_robin(ranked) + torch.tensor(base, device=windows.device).unsqueeze(1)
        index[candidates] = chosen
    return index


def select_short(windows: Tensor, k: int) -> Tensor:
    """Selects the first k behaviours of every window `[C, k]`: all of them where there are so few.

    -1 stands behind the end of a window.
    """
    begin, end = windows.unsqueeze(1).unbind(2)
    position = begin + torch.arange(k, device=windows.device)
    return position.masked_fill(position >= end, -1)


def _blocks(tiles: list[Tile], heads: int) -> Iterator[list[Tile]]:
    """Puts tiles of similar length together, so that a block is scored into one tensor."""
    block: list[Tile] = []
    num_candidates = 0
    for tile in sorted(tiles, key=lambda tile: -tile.length):
        num_scores = (num_candidates + len(tile.candidates)) * heads
        num_scores *= block[0].length if block else 0
        if block and (num_scores > MAX_SCORES or 2 * tile.length < block[0].length):
            yield block
            block, num_candidates = [], 0
        block.append(tile)
        num_candidates += len(tile.candidates)
    if block:
        yield block


def _score(
    block: list[Tile], query: Tensor, keys: DistinctRows, bias: Tensor | None, windows: Tensor
) -> Tensor:
    """Returns the scores of a block, `[R, H, L]`, -inf where a tile has ended."""
    if len(block) == 1:
        return score_tile(block[0], query, keys, bias, windows)
    num_rows = sum(len(tile.candidates) for tile in block)
    scores = query.new_full((num_rows, query.shape[1], block[0].length), -torch.inf)
    row = 0
    for tile in block:
        part = scores[row : row + len(tile.candidates), :, : tile.length]
        part.copy_(score_tile(tile, query, keys, bias, windows))
        row += len(tile.candidates)
    return scores
