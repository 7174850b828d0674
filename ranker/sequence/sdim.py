"""SDIM, Sampling-based Deep Interest Modeling (Cao et al., CIKM 2022)."""

import torch
from torch import Tensor, nn

from ranker.slots import SequenceInputs
from ranker_kernels.signature_sums import MAX_BITS, signature_sums, signatures


class SDIM(nn.Module):
    """Sums the behaviours that collide with the candidate under random hashes.

    `num_hashes` signs of random projections are grouped into signatures of `bits_per_signature`.
    For each signature the behaviours that share the candidate's are summed and the sum scaled to
    length 1; the interest is the mean over signatures. In expectation a behaviour at angle t weighs
    (1 - t / pi) ^ bits before the scaling. Sums of all signatures are computed once for each
    distinct window, whatever the number of candidates that look at it.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features, which the hashes do not see.
        num_hashes: m in the paper.
        bits_per_signature: tau in the paper; divides `num_hashes`, at most 8.
        hash_seed: of the random directions; kept in checkpoints with the weights.
    """

    max_length = None

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        num_hashes: int = 48,
        bits_per_signature: int = 3,
        hash_seed: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= bits_per_signature <= MAX_BITS or num_hashes < 1:
            raise ValueError(
                f"sdim bits_per_signature is {bits_per_signature} and num_hashes {num_hashes}; "
                f"they must be 1 to {MAX_BITS} and at least 1"
            )
        if num_hashes % bits_per_signature:
            raise ValueError(
                f"sdim bits_per_signature ({bits_per_signature}) must divide "
                f"num_hashes ({num_hashes})"
            )
        self.output_dim = query_dim
        self.bits = bits_per_signature
        generator = torch.Generator().manual_seed(hash_seed)
        self.register_buffer("directions", torch.randn(query_dim, num_hashes, generator=generator))

    directions: Tensor

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, D]; an empty window gives zeros."""
        wanted = signatures(inputs.query, self.directions, self.bits)
        found = signatures(inputs.behaviors, self.directions, self.bits)
        return signature_sums(inputs.behaviors, found, wanted, inputs.windows)
