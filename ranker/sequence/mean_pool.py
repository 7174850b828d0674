"""Mean pooling: the fixed-length user vector that DIN improves on."""

from torch import Tensor, nn

from ranker.modules.behavior import BehaviorInput, CrossMode
from ranker.slots import SequenceInputs
from ranker_kernels.segment_sum import segment_sum


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
        lengths = inputs.windows[:, 1] - inputs.windows[:, 0]
        # an empty history pools to zeros
        return segment_sum(behaviors, inputs.windows) / lengths.clamp_min(1).unsqueeze(1)
