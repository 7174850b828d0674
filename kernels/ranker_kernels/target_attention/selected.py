"""Attention to selected rows in PyTorch, a few candidates at a time; the backward recomputes.

The rows of a block are gathered into memory that the next block uses again: nothing of size
[C, K, V] exists.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ranker_kernels.target_attention.gradients import Gradients, key_columns, zero_gradients

# gathered numbers held at once: 1 MB in float32, which stays in a core's cache
MAX_GATHERED = 1 << 18


def forward(
    query: Tensor, keys: Tensor | None, values: Tensor, bias: Tensor | None, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the output `[C, H, V]` and log sum exp of the scores `[C, H]`, 0 for no scores."""
    output = query.new_zeros(*query.shape[:2], values.shape[1])
    normalizer = query.new_zeros(query.shape[:2])
    for span in _blocks(index, values):
        rows = index[span]
        gathered = _gather(values, rows)
        gathered_keys = key_columns(query, gathered) if keys is None else _gather(keys, rows)
        scores = _score(query[span], gathered_keys, bias, rows)
        total = scores.logsumexp(dim=2)
        # nothing to see: an output of zeros
        total = total.masked_fill_(total == -torch.inf, 0)
        weights = scores.sub_(total.unsqueeze(2)).exp_()
        output[span] = weights @ gathered
        normalizer[span] = total
    return output, normalizer


def backward(
    gradient: Tensor,
    output: Tensor,
    normalizer: Tensor,
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    index: Tensor,
) -> Gradients:
    """Returns the gradients of the inputs."""
    grads = zero_gradients(query, keys, values, bias)
    add_gradients(grads, gradient, output, normalizer, query, keys, values, bias, index)
    return grads


def add_gradients(
    grads: Gradients,
    gradient: Tensor,
    output: Tensor,
    normalizer: Tensor,
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    index: Tensor,
) -> None:
    """Adds to the gradients of keys, values and bias, and writes those of the query."""
    # d score = p (d p - <d out, out>)
    delta = (gradient * output).sum(dim=2)
    for span in _blocks(index, values):
        rows = index[span]
        place = rows.clamp_min(0).flatten()
        gathered, upstream = _gather(values, rows), gradient[span]
        gathered_keys = key_columns(query, gathered) if keys is None else _gather(keys, rows)
        scores = _score(query[span], gathered_keys, bias, rows)
        weights = scores.sub_(normalizer[span].unsqueeze(2)).exp_()  # 0 where there is no row
        of_values = weights.transpose(1, 2) @ upstream
        change = upstream @ gathered.transpose(1, 2)
        change.sub_(delta[span].unsqueeze(2)).mul_(weights)
        grads.query[span] = change @ gathered_keys
        of_keys = change.transpose(1, 2) @ query[span]
        if keys is None:
            key_columns(query, of_values).add_(of_keys)
        else:
            _add(grads.keys, place, of_keys)
        _add(grads.values, place, of_values)
        if grads.bias is not None:
            _add(grads.bias, place, change.transpose(1, 2))


def _blocks(index: Tensor, values: Tensor) -> Iterator[slice]:
    num_candidates, k = index.shape
    if not len(values) or not k:
        return
    step = max(1, MAX_GATHERED // (k * values.shape[1]))
    for begin in range(0, num_candidates, step):
        yield slice(begin, min(begin + step, num_candidates))


def _gather(matrix: Tensor, rows: Tensor) -> Tensor:
    """Returns `[B, K, W]`; any row where there is none."""
    return matrix.index_select(0, rows.clamp_min(0).flatten()).view(*rows.shape, matrix.shape[1])


def _score(query: Tensor, gathered: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    """Returns scores `[B, H, K]`, -inf where there is no row."""
    scores = query @ gathered.transpose(1, 2)
    if bias is not None:
        scores += _gather(bias, rows).transpose(1, 2)
    return scores.masked_fill_((rows < 0).unsqueeze(1), -torch.inf)


def _add(total: Tensor, place: Tensor, parts: Tensor) -> None:
    total.index_add_(0, place, parts.reshape(len(place), -1))
