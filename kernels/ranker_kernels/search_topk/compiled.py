"""The search on CPUs in compiled code (`native/search_topk.cpp`), with scores in float32."""

import ctypes
from ctypes import POINTER, Structure, c_int64, c_void_p

import torch
from torch import Tensor

from ranker_kernels.native import OUTSIDE, SOURCES, load_library
from ranker_kernels.search_topk.blocked import select_short
from ranker_kernels.search_topk.distinct import DistinctRows


class _Problem(Structure):
    """`SearchProblem` of search_problem.h."""

    _fields_ = (
        ("candidates", c_int64),
        ("behaviors", c_int64),
        ("heads", c_int64),
        ("k", c_int64),
        ("blocks", c_int64),
        ("threads", c_int64),
        ("windows", c_void_p),
        ("query", c_void_p),
        ("values", POINTER(c_void_p)),
        ("rows", POINTER(c_void_p)),
        ("counts", POINTER(c_int64)),
        ("widths", POINTER(c_int64)),
        ("bias", c_void_p),
    )


def find_library() -> ctypes.CDLL | None:
    """Returns the compiled code, or None where it cannot be had."""
    return load_library(SOURCES / "search_topk.cpp")


def search(
    library: ctypes.CDLL,
    query: Tensor,
    keys: DistinctRows,
    bias: Tensor | None,
    windows: Tensor,
    k: int,
) -> Tensor:
    """Does what `blocked.search` does.

    Raises:
        IndexError: windows point outside the behaviours.
        MemoryError: there is no memory for its work.
    """
    # products and sums in float32, whatever the precision of the operands
    query, windows = query.float().contiguous(), windows.contiguous()
    bias = None if bias is None else bias.float().contiguous()
    values = [part.float().contiguous() for part in keys.values]
    rows = [None if part is None else part.long().contiguous() for part in keys.rows]
    index = select_short(windows, k)
    blocks = len(values)
    problem = _Problem(
        *(query.shape[0], len(keys), query.shape[1], k, blocks, torch.get_num_threads()),
        *(windows.data_ptr(), query.data_ptr()),
        (c_void_p * blocks)(*(part.data_ptr() for part in values)),
        (c_void_p * blocks)(*(None if part is None else part.data_ptr() for part in rows)),
        (c_int64 * blocks)(*(part.shape[0] for part in values)),
        (c_int64 * blocks)(*(part.shape[1] for part in values)),
        None if bias is None else bias.data_ptr(),
    )
    failure = library.search_topk(ctypes.byref(problem), c_void_p(index.data_ptr()))
    if failure == OUTSIDE:
        raise IndexError(f"search_topk: windows point outside the {len(keys)} behaviours")
    if failure:
        raise MemoryError("search_topk: no memory, or no thread, for the search on the CPU")
    return index
