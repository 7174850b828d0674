"""Precision of losses."""

import torch
from torch import Tensor


def at_least_fp32(values: Tensor) -> Tensor:
    """Widens low precision to fp32, because small probabilities drown in bf16."""
    return values if values.dtype == torch.float64 else values.float()
