"""The shared embedding as one vector of equal width per feature."""

import torch
from torch import Tensor, nn

from ranker.modules.linear import Linear
from ranker.slots import FeatureLayout


class FieldTokens(nn.Module):
    """e_m in R^d for every feature m: its embedding, or W_m x_m where its width is not d.

    For a dense feature that is v_m x_m, the rule of FM and AutoInt.

    Args:
        layout: of the shared embedding.
        dim: width d of every token.

    Raises:
        ValueError: the width is not positive.
    """

    def __init__(self, *, layout: FeatureLayout, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"interaction.token_dim is {dim}; it must be at least 1")
        self.columns = [layout.columns(name) for name in layout.names]
        self.projections = nn.ModuleDict()
        for index, width in enumerate(layout.widths):
            if width != dim:
                projection = Linear(width, dim, bias=False)
                nn.init.xavier_normal_(projection.weight)
                self.projections[str(index)] = projection
        self.num_tokens = len(layout.names)

    def forward(self, embedded: Tensor) -> Tensor:
        """Maps [C, D] to [C, F, d]."""
        tokens = [embedded[:, columns] for columns in self.columns]
        for index, projection in self.projections.items():
            tokens[int(index)] = projection(tokens[int(index)])
        return torch.stack(tokens, dim=1)
