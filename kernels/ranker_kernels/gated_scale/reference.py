"""Gate NU's last step word for word: the oracle of the tests."""

import torch
from torch import Tensor


def gated_scale_reference(logits: Tensor, hidden: Tensor, gamma: float) -> Tensor:
    """Computes the same as `gated_scale`."""
    return gamma * torch.sigmoid(logits) * hidden
