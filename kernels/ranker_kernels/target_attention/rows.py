"""Attention over a few given rows of every candidate: the exact search unit."""

import torch
from torch import Tensor


def attend_rows(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, valid: Tensor
) -> Tensor:
    """Attends to the K rows of every candidate; gradients by autograd.

    Args:
        query: `[C, H, D]`.
        keys: `[C, K, D]`.
        values: `[C, K, V]`.
        bias: `[C, K, H]` or None.
        valid: bool `[C, K]`; other rows are not seen.

    Returns:
        `[C, H, V]`, zeros where no row is valid.
    """
    scores = query @ keys.transpose(1, 2)  # [C, H, K]
    if bias is not None:
        scores = scores + bias.transpose(1, 2)
    scores = scores.masked_fill(~valid.unsqueeze(1), -torch.inf)
    # a softmax over nothing would be NaN
    weights = scores.masked_fill(~valid.any(dim=1).view(-1, 1, 1), 0).softmax(dim=2)
    return weights.masked_fill(~valid.unsqueeze(1), 0) @ values
