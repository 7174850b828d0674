"""Rows of float32 tables on CPUs in compiled code: looked up, and moved by row-wise Adagrad."""

import ctypes
from ctypes import c_float, c_int64, c_void_p

import torch
from torch import Tensor

from ranker_kernels.native import SOURCES, load_library


def find_library() -> ctypes.CDLL | None:
    """Returns the compiled code, or None where it cannot be had."""
    return load_library(SOURCES / "embedding_rows.cpp")


def gather_rows(library: ctypes.CDLL, table: Tensor, rows: Tensor) -> Tensor:
    """Returns rows `[n, D]` of a contiguous table `[R, D]`; int64 `rows` `[n]` are in bounds."""
    output = table.new_empty(len(rows), table.shape[1])
    library.gather_rows(
        *_pointers(table, rows), *map(c_int64, output.shape), c_void_p(output.data_ptr())
    )
    return output


def update_rowwise_adagrad(
    library: ctypes.CDLL,
    table: Tensor,
    squares: Tensor,
    rows: Tensor,
    gradients: Tensor,
    *,
    lr: float,
    eps: float,
) -> None:
    """Moves each different row once, along the sum of its gradients.

    The accumulator grows by the mean of the squared gradient of a row, and the row moves by
    lr / (sqrt(accumulator) + eps) times the gradient. The same bits for any number of threads.

    Args:
        library: of `find_library`.
        table: contiguous `[R, D]`, changed in place.
        squares: the accumulators `[R]`, changed in place.
        rows: int64 `[n]`, in bounds; they may repeat.
        gradients: contiguous `[n, D]`.
        lr: learning rate.
        eps: added to the root of the accumulator.

    Raises:
        MemoryError: there is no memory to sort the rows.
    """
    failed = library.update_rowwise_adagrad(
        *_pointers(table, squares, rows, gradients),
        *map(c_int64, gradients.shape),
        *(c_float(lr), c_float(eps), c_int64(torch.get_num_threads())),
    )
    if failed:
        raise MemoryError("no memory to sort the rows of a batch")


def _pointers(*tensors: Tensor) -> list[c_void_p]:
    return [c_void_p(tensor.data_ptr()) for tensor in tensors]
