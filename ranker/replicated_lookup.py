"""Lets a data-parallel table be looked up on CPUs.

FBGEMM 1.8 pools on CPUs where a collection of unpooled embeddings asks it not to, so a
data-parallel table of an `EmbeddingCollection` crashes there. The kernel is a plain gather of rows;
here it is one. On GPUs FBGEMM's own kernel runs.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    DenseTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor


@functools.cache
def mend_replicated_lookup() -> None:
    """Replaces the forward of FBGEMM's dense kernel where it is wrong: unpooled, on CPUs."""
    original = DenseTableBatchedEmbeddingBagsCodegen.forward

    @functools.wraps(original)
    def forward(self: Any, indices: Tensor, offsets: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not (self.use_cpu and self.pooling_mode == PoolingMode.NONE):
            result: Tensor = original(self, indices, offsets, *args, **kwargs)
            return result
        width = self.max_D
        first_rows = self.weights_offsets // width  # of each feature's table
        bags = (offsets.numel() - 1) // first_rows.numel()
        starts = offsets[torch.arange(first_rows.numel() + 1) * bags]
        base = first_rows.repeat_interleave(starts.diff().long())
        return F.embedding(indices.long() + base, self.weights.view(-1, width))

    DenseTableBatchedEmbeddingBagsCodegen.forward = forward
