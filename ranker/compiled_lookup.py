"""Faster lookups and updates of tables on CPUs, where their optimizer is row-wise Adagrad.

FBGEMM's kernel for unpooled embeddings takes about a third of a training step of DIN there. The
same update, row by row over sorted ids, is compiled code in `ranker_kernels`; where that cannot be
built, and for everything that it does not cover, FBGEMM's kernel runs.
"""

import ctypes
import dataclasses
import functools
from typing import Any

import torch
from fbgemm_gpu.split_embedding_codegen_lookup_invokers import lookup_rowwise_adagrad
from fbgemm_gpu.split_embedding_configs import SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
    WeightDecayMode,
)
from torch import Tensor

from ranker_kernels import embedding_rows
from ranker_kernels.embedding_rows import Keys


@functools.cache
def use_compiled_lookup() -> None:
    """Lets FBGEMM's modules look rows up with compiled code, from now on in this process."""
    original = lookup_rowwise_adagrad.invoke

    @functools.wraps(original)
    def invoke(common: Any, optimizer: Any, momentum: Any, *args: Any, **kwargs: Any) -> Tensor:
        library = None
        # an id of -1 passes FBGEMM's check of ids; its kernel says what is wrong with it
        if not args and _is_covered(common, optimizer, kwargs) and not (common.indices < 0).any():
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
        and has_plain_update(optimizer)
    )


def has_plain_update(optimizer: Any) -> bool:
    """Whether FBGEMM's arguments of row-wise Adagrad ask for nothing but row-wise Adagrad."""
    return (
        not optimizer.gradient_clipping
        and optimizer.max_norm == 0
        and optimizer.weight_decay == 0
        and optimizer.weight_decay_mode != WeightDecayMode.DECOUPLE_GLOBAL.value
    )


def _lookup(library: ctypes.CDLL, common: Any, optimizer: Any, momentum: Any) -> Tensor:
    table = AdagradTable(
        rows=common.host_weights.view(-1, common.max_D),
        squares=momentum.host,
        lr=common.learning_rate_tensor,
        eps=optimizer.eps,
        placeholder=common.placeholder_autograd_tensor,
    )
    # where each feature's table begins in the rows of all of them
    first_rows = common.weights_offsets // common.max_D
    bags = (common.offsets.numel() - 1) // first_rows.numel()
    counts = common.offsets[:: max(bags, 1)].diff()
    rows = common.indices.long() + first_rows.repeat_interleave(counts.long())
    every = Keys(begins=[0], ends=[len(rows)], first_rows=[0], sizes=[len(table.rows)])
    return look_up(library, table, rows, every)[0]


@dataclasses.dataclass(frozen=True)
class AdagradTable:
    """Rows that row-wise Adagrad moves; those of all tables that a module of FBGEMM holds.

    Attributes:
        rows: [R, D].
        squares: the accumulators [R].
        lr: learning rate [].
        eps: of the optimizer.
        placeholder: requires a gradient, and gets none; the rows themselves are no parameters.
    """

    rows: Tensor
    squares: Tensor
    lr: Tensor
    eps: float
    placeholder: Tensor

    @classmethod
    def of(cls, module: SplitTableBatchedEmbeddingBagsCodegen) -> "AdagradTable":
        """Returns the rows of a module that holds them on the CPU."""
        return cls(
            rows=module.weights_host.view(-1, module.max_D),
            squares=module.momentum1_host,
            lr=module.learning_rate_tensor,
            eps=module.optimizer_args.eps,
            placeholder=module.placeholder_autograd_tensor,
        )

    def __post_init__(self) -> None:
        assert len(self.squares) == len(self.rows), "an accumulator for each row, in their order"


def look_up(
    library: ctypes.CDLL, table: AdagradTable, ids: Tensor, keys: Keys
) -> tuple[Tensor, ...]:
    """Returns the rows [n, D] of each key; their gradients move the rows in the backward.

    Args:
        library: of `embedding_rows.find_library`.
        table: with the rows.
        ids: int64 [ids], in bounds.
        keys: where the ids of each key lie, and its table.
    """
    found: tuple[Tensor, ...] = _Lookup.apply(table.placeholder, library, table, ids, keys)  # type: ignore[no-untyped-call]
    return found


class _Lookup(torch.autograd.Function):
    """Rows of a table; the backward moves them and returns no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        placeholder: Tensor,
        library: ctypes.CDLL,
        table: AdagradTable,
        ids: Tensor,
        keys: Keys,
    ) -> tuple[Tensor, ...]:
        # not saved for the backward: that the table changes in between is the point
        ctx.state = library, table, ids, keys
        ctx.set_materialize_grads(False)
        return tuple(embedding_rows.gather_rows(library, table.rows.detach(), ids, keys))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, ...]:
        library, table, ids, keys = ctx.state
        embedding_rows.update_rowwise_adagrad(
            *(library, table.rows.detach(), table.squares, ids, keys, gradients),
            lr=float(table.lr),
            eps=table.eps,
        )
        return (None,) * 5
