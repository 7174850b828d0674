"""Columns next to each other, without a copy where they already lie so in memory."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def join_columns(columns: Sequence[Tensor]) -> Tensor:
    """Returns [rows, W1 + W2 + ...] from [rows, W1], [rows, W2], ...

    The columns of one tensor, in their order, become a view of it; nobody may write to the result.
    """
    if len(columns) == 1:
        return columns[0]
    if torch.compiler.is_compiling() or not _are_side_by_side(columns):
        return torch.cat(list(columns), dim=1)
    joined: Tensor = _Joined.apply(*columns)  # type: ignore[no-untyped-call]
    return joined


def _are_side_by_side(columns: Sequence[Tensor]) -> bool:
    first = columns[0]
    storage = first.untyped_storage().data_ptr() if type(first) is Tensor else None
    return storage is not None and all(
        type(right) is Tensor
        and right.untyped_storage().data_ptr() == storage
        and right.dtype == left.dtype
        and right.stride() == left.stride()
        and right.shape[0] == left.shape[0]
        and right.stride(1) == 1
        and right.storage_offset() == left.storage_offset() + left.shape[1]
        for left, right in pairwise(columns)
    )


class _Joined(torch.autograd.Function):
    """Columns [rows, W] of one tensor to all of them; the gradient is cut, not copied."""

    @staticmethod
    def forward(ctx: Any, *columns: Tensor) -> Tensor:
        ctx.widths = [column.shape[1] for column in columns]
        first = columns[0]
        return first.as_strided((first.shape[0], sum(ctx.widths)), first.stride())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return torch.split(gradient, ctx.widths, dim=1)
