"""ETA, End-to-end Target Attention with hashed search (Chen et al., 2021)."""

import torch
from torch import Tensor, nn

from ranker.modules.target_attention import TargetAttention
from ranker.slots import SequenceInputs
from ranker_kernels.search_topk import search_topk


class ETA(nn.Module):
    """Searches the k nearest behaviours by the Hamming distance of SimHash codes, then attends.

    A code is sign(R e) with fixed random R, so its distance estimates the angle of embeddings. The
    search has no gradient. Of behaviours at the same distance the latest win.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        output_dim: width of the output.
        k: behaviours that the search keeps.
        num_bits: length of the codes.
        num_heads: heads of the attention.
        head_dim: width of a head.
        hash_seed: of the random directions R; kept in checkpoints with the weights.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        output_dim: int,
        k: int = 100,
        num_bits: int = 48,
        num_heads: int = 4,
        head_dim: int = 16,
        hash_seed: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (("k", k), ("num_bits", num_bits)):
            if size < 1:
                raise ValueError(f"eta {name} is {size}; must be at least 1")
        self.k = k
        self.output_dim = output_dim
        self.attention = TargetAttention(
            query_dim=query_dim,
            cross_dim=cross_dim,
            num_heads=num_heads,
            head_dim=head_dim,
            output_dim=output_dim,
        )
        generator = torch.Generator().manual_seed(hash_seed)
        self.register_buffer("directions", torch.randn(query_dim, num_bits, generator=generator))

    directions: Tensor

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, output_dim]; an empty window gives zeros."""
        query = self.attention.absorb(inputs.query)
        return self.attention.attend_selected(inputs, query, self.search(inputs))

    @torch.no_grad()
    def search(self, inputs: SequenceInputs) -> Tensor:
        """Returns the selected behaviours [C, k], -1 for none."""
        query, keys = self._codes(inputs.query), self._codes(inputs.behaviors)
        # the product of two codes is num_bits - 2 distance; less than 1 breaks ties by recency
        count = len(keys)
        recency = torch.arange(count, device=keys.device) / max(count, 1)
        return search_topk(query.unsqueeze(1), keys, recency.unsqueeze(1), inputs.windows, k=self.k)

    def _codes(self, embedded: Tensor) -> Tensor:
        """Returns codes of -1 and 1, [rows, num_bits]."""
        return torch.where(embedded @ self.directions >= 0, 1.0, -1.0)
