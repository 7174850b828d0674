"""ETA, End-to-end Target Attention with hashed search (Chen et al., 2021)."""

import torch
from torch import Tensor

from ranker.modules.two_stage import TwoStageEncoder
from ranker.slots import SearchInputs
from ranker_kernels.hamming_topk import hamming_topk, pack_bits

# behaviours hashed at once: before they are packed, codes are larger than the behaviours
_ROWS_AT_ONCE = 1 << 14


class ETA(TwoStageEncoder):
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
        score_scale: factor of the attention's scores, see `TargetAttention`.
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
        score_scale: float = 1.0,
        hash_seed: int = 0,
    ) -> None:
        super().__init__(
            query_dim=query_dim,
            cross_dim=cross_dim,
            output_dim=output_dim,
            k=k,
            num_heads=num_heads,
            head_dim=head_dim,
            score_scale=score_scale,
        )
        if num_bits < 1:
            raise ValueError(f"num_bits is {num_bits}; must be at least 1")
        generator = torch.Generator().manual_seed(hash_seed)
        self.register_buffer("directions", torch.randn(query_dim, num_bits, generator=generator))

    directions: Tensor

    def search(self, inputs: SearchInputs) -> Tensor:
        """Returns the selected behaviours [C, k], -1 for none."""
        query = pack_bits(inputs.query @ self.directions >= 0)
        keys = torch.cat(
            [
                pack_bits(
                    inputs.behaviors.between(begin, begin + _ROWS_AT_ONCE) @ self.directions >= 0
                )
                for begin in range(0, max(len(inputs.behaviors), 1), _ROWS_AT_ONCE)
            ]
        )
        return hamming_topk(query, keys, inputs.windows, k=self.k)
