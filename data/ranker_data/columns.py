"""Flat columns, plain or ragged (offsets and values), gathered by row without Python loops."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Ragged:
    """A column of lists: row i holds values[offsets[i] : offsets[i + 1]]."""

    offsets: IntArray
    values: Array

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        """Number of values in each row."""
        return np.diff(self.offsets)


Column = Array | Ragged


def plain(column: Column) -> Array:
    """Returns a column that is known to hold one value a row."""
    assert not isinstance(column, Ragged)
    return column


def expand_ranges(begins: IntArray, lengths: IntArray) -> IntArray:
    """Returns the concatenation of the ranges [begin, begin + length)."""
    offsets = offsets_of(lengths)
    index = np.repeat(begins - offsets[:-1], lengths)
    index += np.arange(len(index))
    return index


def take(column: Column, rows: IntArray) -> Column:
    """Returns the given rows of a column, in that order."""
    if not isinstance(column, Ragged):
        return column[rows]
    lengths = column.lengths[rows]
    values = column.values[expand_ranges(column.offsets[rows], lengths)]
    return Ragged(offsets_of(lengths), values)


def offsets_of(lengths: IntArray) -> IntArray:
    """Returns [0, l0, l0 + l1, ...]."""
    ends = np.empty(len(lengths) + 1, np.int64)
    ends[0] = 0
    np.cumsum(lengths, out=ends[1:])
    return ends


def from_arrow(array: pa.ChunkedArray) -> Column:
    """Converts a column that has no null lists.

    Nulls of a float column become NaN, without a copy if possible.
    """
    if array.num_chunks == 1:
        flat = array.chunk(0)
    else:
        flat = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if not pa.types.is_list(flat.type):
        return flat.to_numpy(zero_copy_only=False)
    # a slice keeps its parent's buffers: cut them, and start the offsets at 0
    offsets = flat.offsets.to_numpy().astype(np.int64)
    values = flat.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    return Ragged(offsets - offsets[0], values.to_numpy(zero_copy_only=False))
