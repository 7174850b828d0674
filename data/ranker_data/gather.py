"""Copies columns out of scattered records: what building a batch mostly is.

A batch wants the values of each column together, and has its records from many places. The compiled
form asks for records ahead of their use and writes each value once, where it belongs; the other is
the same in numpy, for machines without a C++ compiler.
"""

import ctypes
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ranker_data.arena import ArenaPool
from ranker_data.columns import Array, IntArray, expand_ranges, offsets_of
from ranker_kernels.native import load_library

_SOURCE = Path(__file__).with_name("gather.cpp")


@dataclasses.dataclass(frozen=True)
class Ranges:
    """Ranges of records, batch after batch.

    Attributes:
        begins: [R] first record of each range.
        bounds: [T + 1] first range of each batch, and R.
        lengths: [R] records of each range; None: one.
    """

    begins: IntArray
    bounds: IntArray
    lengths: IntArray | None = None


@dataclasses.dataclass(frozen=True)
class Target:
    """Where the values of a column go.

    Attributes:
        column: of the records; None if they are plain values.
        out: contiguous, with the column's type and shape, or int64 for an int32.
        begins: [T] entry of `out` at which each batch begins; None: one batch behind the other.
    """

    column: str | None
    out: Array
    begins: IntArray | None = None


class Gather(Protocol):
    """Copies the columns of some ranges of records to their targets."""

    def __call__(self, records: Array, ranges: Ranges, targets: Sequence[Target]) -> None:
        """Fills all of each target that belongs to the batches of the ranges."""


class NumpyGather:
    """Takes the records, and copies their columns."""

    def __init__(self) -> None:
        self._scratch = ArenaPool()

    def __reduce__(self) -> tuple[type["NumpyGather"], tuple[()]]:
        return NumpyGather, ()

    def __call__(self, records: Array, ranges: Ranges, targets: Sequence[Target]) -> None:
        """See `Gather`."""
        index = ranges.begins
        if ranges.lengths is not None:
            index = expand_ranges(ranges.begins, ranges.lengths)
        taken = self._scratch.borrow().take(records, index)
        bounds = _entry_bounds(ranges)
        for target in targets:
            values = taken if target.column is None else taken[target.column]
            if target.begins is None:
                target.out[...] = values
                continue
            for t, begin in enumerate(target.begins.tolist()):
                share = values[bounds[t] : bounds[t + 1]]
                target.out[begin : begin + len(share)] = share


class CompiledGather:
    """Runs gather.cpp.

    Args:
        library: what it was compiled to.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._function = library.gather
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self._function.argtypes = [
            pointer,
            number,
            pointer,
            pointer,
            pointer,
            number,
            pointer,
            number,
            pointer,
        ]
        self._function.restype = None

    def __reduce__(self) -> tuple[Callable[[], Gather], tuple[()]]:
        return best_gather, ()

    def __call__(self, records: Array, ranges: Ranges, targets: Sequence[Target]) -> None:
        """See `Gather`."""
        targets = [target for target in targets if target.out.size]
        if not targets:
            return
        assert records.flags.c_contiguous
        for array in (ranges.begins, ranges.bounds, ranges.lengths):
            assert array is None or (array.dtype == np.int64 and array.flags.c_contiguous)
        num_batches = len(ranges.bounds) - 1
        columns = np.array([_describe(records.dtype, target) for target in targets], np.int64)
        outs = np.empty((num_batches, len(targets)), np.int64)
        bounds = _entry_bounds(ranges)[:-1]
        for k, target in enumerate(targets):
            entries = bounds if target.begins is None else target.begins
            np.multiply(entries, target.out.strides[0], out=outs[:, k])
            outs[:, k] += target.out.ctypes.data
        self._function(
            records.ctypes.data,
            records.itemsize,
            ranges.begins.ctypes.data,
            None if ranges.lengths is None else ranges.lengths.ctypes.data,
            ranges.bounds.ctypes.data,
            num_batches,
            columns.ctypes.data,
            len(targets),
            outs.ctypes.data,
        )


def best_gather() -> Gather:
    """Returns the fastest form that works on this machine."""
    library = load_library(_SOURCE, instead="numpy builds batches, at about half the speed")
    return NumpyGather() if library is None else CompiledGather(library)


def _entry_bounds(ranges: Ranges) -> IntArray:
    """Returns where the records of each batch begin among all of them, and their number."""
    if ranges.lengths is None:
        return ranges.bounds
    return offsets_of(ranges.lengths)[ranges.bounds]


def _describe(record: np.dtype, target: Target) -> tuple[int, int, bool]:
    """Returns offset and size of a target's column, and whether it is widened."""
    out, offset, kind = target.out, 0, record
    if target.column is not None:
        assert record.fields is not None
        kind, offset = record.fields[target.column][:2]
    widens = kind.base == np.int32 and out.dtype == np.int64
    assert widens or kind.base == out.dtype
    assert kind.shape == out.shape[1:]
    assert out.flags.c_contiguous
    return offset, kind.itemsize, widens
