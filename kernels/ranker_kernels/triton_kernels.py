"""What the Triton kernels of several ops share."""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

DOT_TYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


def are_supported(*tensors: Tensor | None) -> bool:
    """Whether kernels take the dtypes of these tensors, None for one that is not there."""
    return {tensor.dtype for tensor in tensors if tensor is not None} <= DOT_TYPES.keys()


def choose_dot_type(*tensors: Tensor | None) -> Any:
    """Returns Triton's type of the operands of products.

    It is the widest of the tensors', float32 for what kernels do not know.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    # the interpreter, which alone runs kernels on CPU, gets bfloat16 products wrong
    if not given[0].is_cuda:
        return tl.float32
    widest = functools.reduce(torch.promote_types, (tensor.dtype for tensor in given))
    return DOT_TYPES.get(widest, tl.float32)


def tile_side(size: int) -> int:
    """Returns the side of a tile: a power of two, and at least what a tensor core takes."""
    return max(16, 1 << (size - 1).bit_length())


@triton.jit
def load_rows(pointer, rows, exists, SIZE: tl.constexpr, SIDE: tl.constexpr):
    """Loads rows `[R, SIDE]` of a matrix with `SIZE` columns; zeros where there is nothing."""
    columns = tl.arange(0, SIDE)
    inside = exists[:, None] & (columns < SIZE)[None, :]
    return tl.load(pointer + rows[:, None] * SIZE + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(pointer, rows, exists, matrix, SIZE: tl.constexpr, SIDE: tl.constexpr):
    """Stores what `load_rows` would load."""
    columns = tl.arange(0, SIDE)
    inside = exists[:, None] & (columns < SIZE)[None, :]
    tl.store(pointer + rows[:, None] * SIZE + columns[None, :], matrix, mask=inside)
