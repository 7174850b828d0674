"""Faster lookups and updates of tables on CPUs, where their optimizer is row-wise Adagrad.

FBGEMM's kernel for unpooled embeddings takes about a third of a training step of DIN there. The
same update, row by row over sorted ids, is compiled code in `ranker_kernels`; where that cannot be
built, and for everything that it does not cover, FBGEMM's kernel runs.
"""

import ctypes
import functools
from typing import Any

import torch
from fbgemm_gpu.split_embedding_codegen_lookup_invokers import lookup_rowwise_adagrad
from fbgemm_gpu.split_embedding_configs import SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from torch import Tensor

from ranker_kernels import embedding_rows


@functools.cache
def use_compiled_lookup() -> None:
    """Lets FBGEMM's modules look rows up with compiled code, from now on in this process."""
    original = lookup_rowwise_adagrad.invoke

    @functools.wraps(original)
    def invoke(common: Any, optimizer: Any, momentum: Any, *args: Any, **kwargs: Any) -> Tensor:
        library = None
        if not args and _is_covered(common, optimizer, kwargs):
            library = embedding_rows.find_library()
        if library is None:
            result: Tensor = original(common, optimizer, momentum, *args, **kwargs)
            return result
        return _lookup(library, common, optimizer, momentum)

    lookup_rowwise_adagrad.invoke = invoke


def _is_covered(common: Any, optimizer: Any, options: dict[str, Any]) -> bool:
    """Whether a call is the plain case: unpooled fp32 rows of one width, and nothing extra."""
    return (
        common.host_weights.numel() > 0
        and common.host_weights.dtype == torch.float32
        and common.pooling_mode == PoolingMode.NONE.value
        and common.output_dtype == SparseType.FP32.as_int()
        and common.indice_weights is None
        and common.feature_requires_grad is None
        and common.vbe_metadata.B_offsets is None
        and not options.get("mixed_D")
        and not options.get("apply_global_weight_decay")
        and not optimizer.gradient_clipping
        and optimizer.max_norm == 0
        and optimizer.weight_decay == 0
    )


def _lookup(library: ctypes.CDLL, common: Any, optimizer: Any, momentum: Any) -> Tensor:
    table = common.host_weights.view(-1, common.max_D)
    # where each feature's table begins in the rows of all of them
    first_rows = common.weights_offsets // common.max_D
    bags = (common.offsets.numel() - 1) // first_rows.numel()
    counts = common.offsets[:: max(bags, 1)].diff()
    rows = common.indices.long() + first_rows.repeat_interleave(counts.long())
    assert momentum.host.numel() == table.shape[0], "an accumulator for each row, in their order"
    output: Tensor = _Lookup.apply(  # type: ignore[no-untyped-call]
        common.placeholder_autograd_tensor,
        library,
        table,
        momentum.host,
        rows,
        common.learning_rate_tensor,
        optimizer.eps,
    )
    return output


class _Lookup(torch.autograd.Function):
    """Rows of a table; the backward moves them and returns no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        placeholder: Tensor,
        library: ctypes.CDLL,
        table: Tensor,
        squares: Tensor,
        rows: Tensor,
        lr: Tensor,
        eps: float,
    ) -> Tensor:
        # not saved for the backward: that the table changes in between is the point
        ctx.state = library, table.detach(), squares, rows, lr, eps
        return embedding_rows.gather_rows(library, table.detach(), rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        library, table, squares, rows, lr, eps = ctx.state
        embedding_rows.update_rowwise_adagrad(
            library, table, squares, rows, gradient.contiguous(), lr=float(lr), eps=eps
        )
        return (None,) * 7
