"""Sums over windows word for word: the oracle of the tests."""

import torch
from torch import Tensor


def segment_sum_reference(values: Tensor, windows: Tensor) -> Tensor:
    """Computes the same as `segment_sum`, slowly."""
    sums = [values[begin:end].sum(dim=0) for begin, end in windows.tolist()]
    return torch.stack([values[:0].sum(dim=0), *sums])[1:]
