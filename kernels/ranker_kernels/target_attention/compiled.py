"""The attention on CPUs in compiled code, `native/{selected,window}_attention.cpp`."""

import ctypes
from collections.abc import Callable
from ctypes import Structure, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from ranker_kernels.native import OUTSIDE, SOURCES, load_library
from ranker_kernels.target_attention.gradients import Gradients, zero_gradients


class _Problem(Structure):
    """`AttentionProblem` of attention_problem.h."""

    _fields_ = (
        ("candidates", c_int64),
        ("heads", c_int64),
        ("dim", c_int64),
        ("width", c_int64),
        ("rows", c_int64),
        ("columns", c_int64),
        ("threads", c_int64),
        ("query", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("bias", c_void_p),
        ("seen", c_void_p),
    )


class _Upstream(Structure):
    """`AttentionUpstream` of attention_problem.h."""

    _fields_ = (("gradient", c_void_p), ("output", c_void_p), ("normalizer", c_void_p))


class _Gradients(Structure):
    """`AttentionGradients` of attention_problem.h."""

    _fields_ = (
        ("query", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("bias", c_void_p),
    )


def find_library(query: Tensor, *, selects: bool) -> ctypes.CDLL | None:
    """Returns the code for selected rows, or for windows, if it takes such a query and is there."""
    if query.device.type != "cpu" or query.dtype != torch.float32:
        return None
    return load_library(SOURCES / f"{'selected' if selects else 'window'}_attention.cpp")


def forward(
    library: ctypes.CDLL,
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    seen: Tensor,
) -> tuple[Tensor, Tensor]:
    """Does what `forward` of `selected` or of `blocked` does; `seen` is their last argument."""
    output = query.new_zeros(*query.shape[:2], values.shape[1])
    normalizer = query.new_zeros(query.shape[:2])
    written = [c_void_p(tensor.data_ptr()) for tensor in (output, normalizer)]
    _call(library.attend, (query, keys, values, bias, seen), *written)
    return output, normalizer


def backward(
    library: ctypes.CDLL,
    gradient: Tensor,
    output: Tensor,
    normalizer: Tensor,
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    seen: Tensor,
) -> Gradients:
    """Does what `backward` of `selected` or of `blocked` does; `seen` is their last argument."""
    grads = zero_gradients(query, keys, values, bias)
    own_keys = None if keys is None else grads.keys
    found = [tensor.contiguous() for tensor in (gradient, output, normalizer)]
    _call(
        library.differentiate,
        (query, keys, values, bias, seen),
        ctypes.byref(_Upstream(*map(_pointer, found))),
        ctypes.byref(_Gradients(*map(_pointer, (grads.query, own_keys, grads.values, grads.bias)))),
    )
    return grads


def _call(
    function: Callable[..., int],
    inputs: tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor],
    *arguments: Any,
) -> None:
    """Calls a function with the inputs, in the layout that C reads, and more arguments.

    Raises:
        IndexError: `index` or `windows` point outside the rows.
        MemoryError: there is no memory for its work.
    """
    # held here as long as the pointers are used
    laid_out = [None if tensor is None else tensor.contiguous() for tensor in inputs]
    query, _, values, _, seen = inputs
    problem = _Problem(
        *(*query.shape, values.shape[1], len(values), seen.shape[1], torch.get_num_threads()),
        *map(_pointer, laid_out),
    )
    failure = function(ctypes.byref(problem), *arguments)
    if failure == OUTSIDE:
        raise IndexError(
            f"target_attention: index or windows point outside the {len(values)} rows of the values"
        )
    if failure:
        raise MemoryError("target_attention: no memory, or no thread, for the attention on the CPU")


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
