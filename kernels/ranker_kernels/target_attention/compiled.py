"""Attention to selected rows on CPUs in compiled code (`native/selected_attention.cpp`)."""

import ctypes
from collections.abc import Callable
from ctypes import Structure, c_int64, c_void_p

import torch
from torch import Tensor

from ranker_kernels.native import SOURCES, load_library
from ranker_kernels.target_attention.gradients import Gradients, zero_gradients


class _Selection(Structure):
    """`Selection` of selected_attention.cpp."""

    _fields_ = (
        ("candidates", c_int64),
        ("heads", c_int64),
        ("dim", c_int64),
        ("width", c_int64),
        ("picks", c_int64),
        ("rows", c_int64),
        ("threads", c_int64),
        ("query", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("bias", c_void_p),
        ("index", c_void_p),
    )


def find_library(query: Tensor) -> ctypes.CDLL | None:
    """Returns the compiled code, if it is for such tensors and can be had."""
    if query.device.type != "cpu" or query.dtype != torch.float32:
        return None
    return load_library(SOURCES / "selected_attention.cpp")


def forward(
    library: ctypes.CDLL,
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    index: Tensor,
) -> tuple[Tensor, Tensor]:
    """Does what `selected.forward` does."""
    output = query.new_zeros(*query.shape[:2], values.shape[1])
    normalizer = query.new_zeros(query.shape[:2])
    _Call(query, keys, values, bias, index).run(library.selected_forward, output, normalizer)
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
    index: Tensor,
) -> Gradients:
    """Does what `selected.backward` does."""
    grads = zero_gradients(query, keys, values, bias)
    call = _Call(query, keys, values, bias, index)
    upstream = [tensor.contiguous() for tensor in (gradient, output, normalizer)]
    own_keys = None if keys is None else grads.keys
    found = (*upstream, grads.query, own_keys, grads.values, grads.bias)
    call.run(library.selected_backward, *found)
    return grads


class _Call:
    """Inputs in the layout that C reads; holds the tensors as long as the pointers live."""

    def __init__(
        self,
        query: Tensor,
        keys: Tensor | None,
        values: Tensor,
        bias: Tensor | None,
        index: Tensor,
    ) -> None:
        self.tensors = [
            None if tensor is None else tensor.contiguous()
            for tensor in (query, keys, values, bias, index)
        ]
        candidates, heads, dim = query.shape
        rows, width = values.shape
        self.selection = _Selection(
            *(candidates, heads, dim, width, index.shape[1], rows, torch.get_num_threads()),
            *map(_pointer, self.tensors),
        )

    def run(self, function: Callable[..., int], *arguments: Tensor | None) -> None:
        """Calls a function with the selection and more arguments.

        Raises:
            MemoryError: there is no memory for its work.
        """
        passed = [c_void_p(_pointer(tensor)) for tensor in arguments]
        if function(ctypes.byref(self.selection), *passed):
            raise MemoryError(
                "target_attention: no memory, or no thread, for the attention on the CPU"
            )


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
