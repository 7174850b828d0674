"""Memory that blocks are built in, used again when nobody looks at it any more.

Fresh memory costs a page fault for every four kilobytes, which is more than filling it.
"""

import sys
from typing import Any

import numpy as np

from ranker_data.columns import Array

_ALIGNMENT = 64
# blocks that are alive at the same time when each is used up before the next
_POOLED = 4


class Arena:
    """Hands out arrays that lie one behind the other in a buffer.

    Args:
        buffer: bytes. What does not fit gets memory of its own.
    """

    def __init__(self, buffer: Array) -> None:
        self.buffer = buffer
        self.demand = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Returns an array without content."""
        dtype = np.dtype(dtype)
        size = dtype.itemsize
        for length in shape:
            size *= length
        begin = self.demand
        self.demand += -(-size // _ALIGNMENT) * _ALIGNMENT
        if begin + size > len(self.buffer):
            return np.empty(shape, dtype)
        return self.buffer[begin : begin + size].view(dtype).reshape(shape)

    def copy(self, values: Array, dtype: Any = None) -> Array:
        """Returns a contiguous copy."""
        result = self.empty(values.shape, values.dtype if dtype is None else dtype)
        result[...] = values
        return result

    def take(self, values: Array, index: Array) -> Array:
        """Returns the entries at valid positions."""
        result = self.empty((len(index),), values.dtype)
        # this mode writes to the result without a buffer between
        return values.take(index, out=result, mode="wrap")


class ArenaPool:
    """Arenas of one process; one is free when no array and no tensor of its memory is left."""

    def __init__(self) -> None:
        self._arenas: list[Arena] = []
        self._num_bytes = 0

    def borrow(self) -> Arena:
        """Returns an arena that is free, as large as the largest demand so far."""
        self._num_bytes = max([self._num_bytes, *(arena.demand for arena in self._arenas)])
        free = next((arena for arena in self._arenas if is_free(arena)), None)
        if free is not None and len(free.buffer) >= self._num_bytes:
            free.demand = 0
            return free
        if free is not None:
            self._arenas.remove(free)
        # a little more, because blocks differ
        arena = Arena(np.empty(self._num_bytes + self._num_bytes // 8, np.uint8))
        if len(self._arenas) < _POOLED:
            self._arenas.append(arena)
        return arena


def is_free(arena: Arena) -> bool:
    """Whether nobody but the arena refers to its buffer."""
    # one reference of the arena, one of the call
    return sys.getrefcount(arena.buffer) == 2
