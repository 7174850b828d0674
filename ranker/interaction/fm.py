"""Second-order factorisation machine (Rendle, ICDM 2010), pooled (He & Chua, SIGIR 2017)."""

import torch
from torch import Tensor, nn

from ranker.modules.field_tokens import FieldTokens
from ranker.slots import FeatureLayout


class FM(nn.Module):
    """v = sum_{m<n} e_m * e_n = ((sum_m e_m)^2 - sum_m e_m^2) / 2, beside the embedding itself.

    The sum over v's columns is FM's second-order term; the head weighs them.

    Args:
        layout: of the shared embedding.
        token_dim: width of a feature's vector; features of another width are projected.
    """

    def __init__(self, *, layout: FeatureLayout, token_dim: int) -> None:
        super().__init__()
        self.tokens = FieldTokens(layout=layout, dim=token_dim)
        self.output_dim = token_dim + layout.dim

    def forward(self, embedded: Tensor) -> Tensor:
        """Maps [C, D] to [C, token_dim + D]."""
        tokens = self.tokens(embedded)
        pairs = (tokens.sum(1).square() - tokens.square().sum(1)) / 2
        return torch.cat([pairs, embedded], dim=1)
