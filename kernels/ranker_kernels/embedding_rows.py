"""Rows of float32 tables on CPUs in compiled code: looked up, and moved by row-wise Adagrad."""

import ctypes
import dataclasses
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int64, c_void_p

import torch
from torch import Tensor

from ranker_kernels.native import SOURCES, load_library

_SOURCE = SOURCES / "embedding_rows.cpp"


@dataclasses.dataclass(frozen=True)
class Keys:
    """Where the ids of each key lie, and the rows that they count.

    Attributes:
        begins: of the ids of each key.
        ends: of the ids of each key.
        first_rows: the row of the table that id 0 of each key names.
        sizes: the ids of each key are below this.
    """

    begins: Sequence[int]
    ends: Sequence[int]
    first_rows: Sequence[int]
    sizes: Sequence[int]

    def __len__(self) -> int:
        """Returns the number of keys."""
        return len(self.begins)

    def count(self, key: int) -> int:
        """Returns the number of ids of a key."""
        return self.ends[key] - self.begins[key]

    def follows(self, key: int, other: int) -> bool:
        """Whether the ids of a key follow those of another, and are as many."""
        return self.begins[key] == self.ends[other] and self.count(key) == self.count(other)

    def of(self, places: Sequence[int]) -> "Keys":
        """Returns some of the keys."""
        fields = (self.begins, self.ends, self.first_rows, self.sizes)
        return Keys(*([field[i] for i in places] for field in fields))


class _KeyedIds(Structure):
    """`KeyedIds` of keyed_ids.h."""

    _fields_ = (
        ("keys", c_int64),
        ("ids", c_void_p),
        ("begins", POINTER(c_int64)),
        ("ends", POINTER(c_int64)),
        ("first_rows", POINTER(c_int64)),
        ("sizes", POINTER(c_int64)),
    )


def find_library() -> ctypes.CDLL | None:
    """Returns the compiled code, or None where it cannot be had."""
    return load_library(_SOURCE)


def are_in_bounds(library: ctypes.CDLL, ids: Tensor, keys: Keys) -> bool:
    """Whether the int64 `ids` `[n]` of each key lie between 0 and its size."""
    return bool(library.are_in_bounds(ctypes.byref(_keyed(ids, keys))))


def gather_rows(library: ctypes.CDLL, table: Tensor, ids: Tensor, keys: Keys) -> list[Tensor]:
    """Returns the rows `[count, D]` of each key.

    Keys whose ids follow each other, and are as many, get theirs as columns of one tensor, in the
    order of the ids: who wants them side by side need not copy them.

    Args:
        library: of `find_library`.
        table: contiguous `[R, D]`.
        ids: contiguous int64 `[n]`, in bounds.
        keys: of the ids.

    Raises:
        MemoryError: there is no memory to list the keys.
    """
    order = sorted(range(len(keys)), key=lambda key: (keys.begins[key], keys.ends[key]))
    found = _allocate(table, keys.of(order))
    failed = library.gather_rows(
        *(_pointer(table), ctypes.byref(_keyed(ids, keys.of(order))), c_int64(table.shape[1])),
        *(_pointers(found), _numbers([rows.stride(0) for rows in found])),
        c_int64(torch.get_num_threads()),
    )
    if failed:
        raise MemoryError("no memory to look the rows of a batch up")
    by_key = dict(zip(order, found, strict=True))
    return [by_key[key] for key in range(len(keys))]


def _allocate(table: Tensor, keys: Keys) -> list[Tensor]:
    """Returns room for the rows `[count, D]` of each key, in the order of their ids."""
    width = table.shape[1]
    found: list[Tensor] = []
    while (first := len(found)) < len(keys):
        last = first + 1
        while last < len(keys) and keys.follows(last, last - 1):
            last += 1
        rows = table.new_empty(keys.count(first), (last - first) * width)
        found += torch.split(rows, width, dim=1)
    return found


def update_rowwise_adagrad(
    library: ctypes.CDLL,
    table: Tensor,
    squares: Tensor,
    ids: Tensor,
    keys: Keys,
    gradients: Sequence[Tensor | None],
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
        ids: contiguous int64 `[n]`, in bounds; they may repeat.
        keys: of the ids.
        gradients: of the rows `[count, D]` of each key; None moves none of them.
        lr: learning rate.
        eps: added to the root of the accumulator.

    Raises:
        MemoryError: there is no memory to part the rows.
    """
    given = [i for i, gradient in enumerate(gradients) if gradient is not None]
    rows = [_with_dense_rows(gradient) for gradient in gradients if gradient is not None]
    failed = library.update_rowwise_adagrad(
        *(_pointer(table), _pointer(squares), ctypes.byref(_keyed(ids, keys.of(given)))),
        *(_pointers(rows), _numbers([gradient.stride(0) for gradient in rows])),
        *(c_int64(table.shape[1]), c_float(lr), c_float(eps), c_int64(torch.get_num_threads())),
    )
    if failed:
        raise MemoryError("no memory to part the rows of a batch")


def _with_dense_rows(gradient: Tensor) -> Tensor:
    return gradient if gradient.stride(1) == 1 else gradient.contiguous()


def _keyed(ids: Tensor, keys: Keys) -> _KeyedIds:
    fields = (keys.begins, keys.ends, keys.first_rows, keys.sizes)
    return _KeyedIds(len(keys), _pointer(ids), *map(_numbers, fields))


def _pointer(tensor: Tensor) -> c_void_p:
    return c_void_p(tensor.data_ptr())


def _pointers(tensors: Sequence[Tensor]) -> "ctypes.Array[c_void_p]":
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _numbers(values: Sequence[int]) -> "ctypes.Array[c_int64]":
    return (c_int64 * len(values))(*values)
