"""Attention over whole windows in PyTorch, tile by tile, with a backward that recomputes.

What the forward leaves is the output and one number for each candidate and head. Short windows that
few candidates share are not worth a tile of their own: they are selections, many at a time.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ranker_kernels.search_topk.distinct import DistinctRows
from ranker_kernels.search_topk.tiles import Tile, build_tiles, score_tile
from ranker_kernels.target_attention import selected
from ranker_kernels.target_attention.gradients import Gradients, key_columns, zero_gradients

# scores of a tile, unless one candidate has more: 4 MB in float32
MAX_SCORES = 1 << 20
# pairs of a candidate and a behaviour that make a tile worth its overhead
MIN_PAIRS = 1024


def forward(
    query: Tensor, keys: Tensor | None, values: Tensor, bias: Tensor | None, windows: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the output `[C, H, V]` and log sum exp of the scores `[C, H]`, 0 for no scores."""
    output = query.new_zeros(*query.shape[:2], values.shape[1])
    normalizer = query.new_zeros(query.shape[:2])
    tiles, short = _split(windows, query)
    for candidates, index in _select(short, windows):
        output[candidates], normalizer[candidates] = selected.forward(
            query[candidates], keys, values, bias, index
        )
    if keys is None:
        keys = key_columns(query, values)
    rows, by_head = DistinctRows((keys,), (None,)), None if bias is None else bias.T.contiguous()
    for tile in tiles:
        scores = score_tile(tile, query, rows, by_head, windows)
        total = scores.logsumexp(dim=2)
        weights = scores.sub_(total.unsqueeze(2)).exp_().flatten(0, 1)
        pooled = weights @ values[tile.begin : tile.end]
        output[tile.candidates] = pooled.view(*total.shape, -1)
        normalizer[tile.candidates] = total
    return output, normalizer


def backward(
    gradient: Tensor,
    output: Tensor,
    normalizer: Tensor,
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    windows: Tensor,
) -> Gradients:
    """Returns the gradients of the inputs."""
    grads = zero_gradients(query, keys, values, bias)
    tiles, short = _split(windows, query)
    for candidates, index in _select(short, windows):
        found = (gradient[candidates], output[candidates], normalizer[candidates])
        mine = query[candidates]
        local = grads._replace(query=torch.zeros_like(mine))
        selected.add_gradients(local, *found, mine, keys, values, bias, index)
        grads.query[candidates] = local.query
    # d score = p (d p - <d out, out>)
    delta = (gradient * output).sum(dim=2)
    if keys is None:
        keys = key_columns(query, values)
    rows, by_head = DistinctRows((keys,), (None,)), None if bias is None else bias.T.contiguous()
    for tile in tiles:
        span = slice(tile.begin, tile.end)
        scores = score_tile(tile, query, rows, by_head, windows)
        weights = scores.sub_(normalizer[tile.candidates].unsqueeze(2)).exp_()
        upstream = gradient[tile.candidates].flatten(0, 1)
        grads.values[span] += weights.flatten(0, 1).T @ upstream
        change = (upstream @ values[span].T).view_as(weights)
        change.sub_(delta[tile.candidates].unsqueeze(2)).mul_(weights)
        flat = change.flatten(0, 1)
        grads.query[tile.candidates] = (flat @ keys[span]).view(-1, *query.shape[1:])
        grads.keys[span] += flat.T @ query[tile.candidates].flatten(0, 1)
        if grads.bias is not None:
            grads.bias[span] += change.sum(dim=0).T
    return grads


def _split(windows: Tensor, query: Tensor) -> tuple[list[Tile], list[int]]:
    """Returns the tiles, and the candidates whose windows are too short for one."""
    tiles = build_tiles(windows, longer_than=0, heads=query.shape[1], max_scores=MAX_SCORES)
    large, short = [], []
    for tile in tiles:
        if len(tile.candidates) * tile.length < MIN_PAIRS:
            short += tile.candidates
        else:
            large.append(tile)
    return large, short


def _select(short: list[int], windows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields candidates and their windows as a selection, none twice as long as another's."""
    candidates = torch.tensor(short, dtype=torch.int64, device=windows.device)
    lengths = windows[candidates, 1] - windows[candidates, 0]
    # 1, 2 to 3, 4 to 7 and so on; exact, because the exponent of a float is
    classes = torch.frexp(lengths.double()).exponent
    for level in classes.unique().tolist():  # type: ignore[no-untyped-call]
        members = candidates[classes == level]
        begins, ends = windows[members].unsqueeze(1).unbind(2)
        steps = torch.arange(int((ends - begins).max()), device=windows.device)
        yield members, torch.where(begins + steps < ends, begins + steps, -1)
