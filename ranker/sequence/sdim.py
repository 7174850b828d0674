"""SDIM, Sampling-based Deep Interest Modeling (Cao et al., CIKM 2022)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ranker.modules.windows import expand_windows
from ranker.slots import SequenceInputs


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
        bits_per_signature: tau in the paper; divides `num_hashes`.
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
        if bits_per_signature < 1 or num_hashes < 1 or num_hashes % bits_per_signature:
            raise ValueError(
                f"sdim bits_per_signature ({bits_per_signature}) must be at least 1 and divide "
                f"num_hashes ({num_hashes})"
            )
        self.output_dim = query_dim
        self.bits = bits_per_signature
        generator = torch.Generator().manual_seed(hash_seed)
        self.register_buffer("directions", torch.randn(query_dim, num_hashes, generator=generator))
        self.register_buffer("powers", 2 ** torch.arange(bits_per_signature), persistent=False)

    directions: Tensor
    powers: Tensor

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, D]; an empty window gives zeros."""
        windows, window_of = inputs.windows.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
        rows, _ = expand_windows(windows)
        owner = torch.repeat_interleave(windows[:, 1] - windows[:, 0], output_size=len(rows))
        behaviors = inputs.behaviors.index_select(0, rows)
        wanted, found = self.signatures(inputs.query), self.signatures(inputs.behaviors)
        num_buckets = 2**self.bits
        total = torch.zeros_like(inputs.query)
        for signature in range(wanted.shape[1]):
            bucket = owner * num_buckets + found[rows, signature]
            sums = behaviors.new_zeros(len(windows) * num_buckets, behaviors.shape[1])
            sums = sums.index_add(0, bucket, behaviors)
            mine = sums.index_select(0, window_of * num_buckets + wanted[:, signature])
            total = total + normalize(mine, dim=1)
        return total / wanted.shape[1]

    @torch.no_grad()
    def signatures(self, embedded: Tensor) -> Tensor:
        """Returns the bucket of each row under each signature, [rows, num_hashes / bits]."""
        signs = (embedded @ self.directions >= 0).long()
        return (signs.view(len(embedded), -1, self.bits) * self.powers).sum(dim=2)
