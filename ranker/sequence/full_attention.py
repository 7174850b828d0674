"""Multi-head target attention to the whole history: what two-stage models approximate."""

from torch import Tensor, nn

from ranker.modules.target_attention import TargetAttention
from ranker.slots import SequenceInputs


class FullAttention(nn.Module):
    """Attends to every behaviour of the window, with TWIN's scores and no search.

    Memory does not grow with candidates times length; time does.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        output_dim: width of the output.
        num_heads: heads.
        head_dim: width of a head.
        score_scale: factor of the attention's scores, see `TargetAttention`.
    """

    max_length = None

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        output_dim: int,
        num_heads: int = 4,
        head_dim: int = 16,
        score_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.output_dim = output_dim
        self.attention = TargetAttention(
            query_dim=query_dim,
            cross_dim=cross_dim,
            num_heads=num_heads,
            head_dim=head_dim,
            score_scale=score_scale,
            output_dim=output_dim,
        )

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, output_dim]; an empty window gives zeros."""
        return self.attention.attend_windows(inputs)
