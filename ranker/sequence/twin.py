"""TWIN, TWo-stage Interest Network (Chang et al., KDD 2023), and TWIN-V2 on clustered histories."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ranker.modules.target_attention import TargetAttention
from ranker.slots import SequenceInputs
from ranker_kernels.search_topk import search_topk

ScorePrecision = Literal["float32", "bfloat16"]


class TWIN(nn.Module):
    """Searches the k behaviours that matter to a candidate, and attends to them.

    Search (GSU) and attention (ESU) use the same scores with the same parameters, so the search
    finds what the attention would weigh most. The search has no gradient; parameters and tables
    learn from the selected behaviours alone. With k at least the length of the history this is full
    multi-head target attention.

    On clustered histories (TWIN-V2, 2407.16357) ln(size) is added to the scores of both stages, so
    that a cluster of n events counts n times.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        output_dim: width of the output.
        k: behaviours that the search keeps (the paper: 100).
        num_heads: heads; each has its say in the search by the paper's round robin.
        head_dim: width of a head.
        score_precision: of the operands of the search; the attention takes the model's own.

    Raises:
        ValueError: a size is less than 1, or the precision is unknown.
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
        score_precision: ScorePrecision = "float32",
    ) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"twin k is {k}; must be at least 1")
        if score_precision not in get_args(ScorePrecision):
            raise ValueError(
                f"twin score_precision is {score_precision!r}; must be one of "
                f"{', '.join(get_args(ScorePrecision))}"
            )
        self.k = k
        self.score_dtype = getattr(torch, score_precision)
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
        return self.attention.attend_selected(inputs, query, self.search(inputs, query))

    @torch.no_grad()
    def search(self, inputs: SequenceInputs, query: Tensor) -> Tensor:
        """Returns the selected behaviours [C, k] of absorbed candidates [C, H, D], -1 for none."""
        return search_topk(
            self._rounded(query),
            self._rounded(inputs.behaviors),
            self.attention.bias(inputs.cross, inputs.log_size),
            inputs.windows,
            k=self.k,
        )

    def _rounded(self, operand: Tensor) -> Tensor:
        return operand if self.score_dtype == torch.float32 else operand.to(self.score_dtype)
