"""SIM, Search-based Interest Model with soft search (Pi et al., CIKM 2020, section 3.1)."""

import torch
from torch import Tensor, nn

from ranker.modules.target_attention import TargetAttention
from ranker.slots import SequenceInputs
from ranker_kernels.search_topk import search_topk


class SIMSoft(nn.Module):
    """Searches by the inner product of embeddings r_j = e_j . e_a, then attends to what it finds.

    The search knows neither the attention's projections nor cross features: the two stages
    disagree on what is relevant, which is the point of TWIN. It compares the embeddings of the
    ranking model as they are; the paper trains W_a and W_b of r_j = (W_b e_j) . (W_a e_a) by an
    auxiliary loss, which this encoder does not have.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        output_dim: width of the output.
        k: behaviours that the search keeps.
        num_heads: heads of the attention.
        head_dim: width of a head.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        output_dim: int,
        k: int = 100,
        num_heads: int = 4,
        head_dim: int = 16,
    ) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"sim_soft k is {k}; must be at least 1")
        self.k = k
        self.output_dim = output_dim
        self.attention = TargetAttention(
            query_dim=query_dim,
            cross_dim=cross_dim,
            num_heads=num_heads,
            head_dim=head_dim,
            output_dim=output_dim,
        )

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, output_dim]; an empty window gives zeros."""
        query = self.attention.absorb(inputs.query)
        return self.attention.attend_selected(inputs, query, self.search(inputs))

    @torch.no_grad()
    def search(self, inputs: SequenceInputs) -> Tensor:
        """Returns the selected behaviours [C, k], -1 for none."""
        query = inputs.query.unsqueeze(1)
        return search_topk(query, inputs.behaviors, None, inputs.windows, k=self.k)
