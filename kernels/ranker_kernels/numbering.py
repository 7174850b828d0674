"""Numbers of distinct ids and of flagged rows: compiled code on CPUs, or PyTorch."""

import ctypes
from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from ranker_kernels.native import SOURCES, load_library

# a table of flags over the ids pays as long as there are not many more ids than rows
_MAX_FLAGS_PER_ID = 16
# what the compiled code returns where ids are too far apart for its table
_TOO_FAR = -2


def find_library() -> ctypes.CDLL | None:
    """Returns the compiled code, or None where it cannot be had."""
    library = load_library(SOURCES / "numbering.cpp")
    if library is not None:
        library.distinct_ids.restype = library.number_flags.restype = c_int64
    return library


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the distinct ids of int64 `[n]`, ascending, and the place `[n]` of each among them.

    Raises:
        MemoryError: there is no memory for a table of the ids.
    """
    library = find_library() if ids.device.type == "cpu" and ids.dtype == torch.int64 else None
    if library is None:
        return distinct_in_torch(ids)
    ids = ids.contiguous()
    # pages of what is not written are never had
    found, places = torch.empty_like(ids), torch.empty_like(ids)
    number = library.distinct_ids(_pointer(ids), c_int64(len(ids)), *map(_pointer, (found, places)))
    if number == _TOO_FAR:
        return _unique(ids)
    if number < 0:
        raise MemoryError("no memory for a table of the ids of a batch")
    return found[:number], places


def distinct_in_torch(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The same in PyTorch."""
    # read at once: a GPU is waited for
    low, high = torch.stack(ids.aminmax()).tolist() if len(ids) else (0, -1)
    size = high + 1
    if low < 0 or size > _MAX_FLAGS_PER_ID * len(ids):
        return _unique(ids)
    flags = torch.zeros(size, dtype=torch.bool, device=ids.device)
    flags[ids] = True
    found = flags.nonzero()[:, 0]
    # only the places of what was found are written and read
    places = torch.empty(size, dtype=torch.int64, device=ids.device)
    places[found] = torch.arange(len(found), device=ids.device)
    return found.to(ids.dtype), places[ids]


def number_flags(flags: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the rows `[m]` that are flagged in bool `[n]`, and `[n + 1]` how many come before."""
    is_covered = flags.device.type == "cpu" and flags.dtype == torch.bool
    library = find_library() if is_covered else None
    if library is None:
        return number_flags_in_torch(flags)
    flags, count = flags.contiguous(), len(flags)
    rows, places = (flags.new_empty(size, dtype=torch.int64) for size in (count, count + 1))
    number = library.number_flags(_pointer(flags), c_int64(count), *map(_pointer, (rows, places)))
    return rows[:number], places


def number_flags_in_torch(flags: Tensor) -> tuple[Tensor, Tensor]:
    """The same in PyTorch."""
    return flags.nonzero()[:, 0], torch.nn.functional.pad(flags.cumsum(0), (1, 0))


def _unique(ids: Tensor) -> tuple[Tensor, Tensor]:
    found, places = ids.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return found, places


def _pointer(tensor: Tensor) -> c_void_p:
    return c_void_p(tensor.data_ptr())
