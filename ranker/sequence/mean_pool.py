"""Mean pooling: the fixed-length user vector that DIN improves on."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.modules.behavior import BehaviorInput, CrossMode
from ranker.modules.windows import expand_windows
from ranker.slots import SequenceInputs


class MeanPool(nn.Module):
    """v = mean_{j in window} e_j; the same for every candidate that sees the same window.

    Args:
        query_dim: width D of a behaviour's inherent features.
        cross_dim: width X of its cross features.
        cross: "add" adds a projection of the cross features to e_j, "none" leaves them out,
            "auto" adds if there are any.
    """

    max_length = None

    def __init__(self, *, query_dim: int, cross_dim: int, cross: CrossMode = "auto") -> None:
        super().__init__()
        self.behavior = BehaviorInput(query_dim=query_dim, cross_dim=cross_dim, cross=cross)
        self.output_dim = query_dim

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, D]."""
        behaviors = self.behavior(inputs.behaviors, inputs.cross)
        rows, offsets = expand_windows(inputs.windows)
        if not len(rows):
            # embedding_bag refuses an empty index; an empty history pools to zeros
            return torch.zeros_like(inputs.query) + 0 * behaviors.sum()
        return F.embedding_bag(rows, behaviors, offsets[:-1], mode="mean")
