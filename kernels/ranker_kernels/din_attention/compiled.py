"""DIN's attention on CPUs in compiled code (`native/din_attention.cpp`), for float32."""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, c_int64, c_void_p

import torch
from torch import Tensor

from ranker_kernels.din_attention.unit import ActivationUnit, Gradients, Normalize
from ranker_kernels.native import SOURCES, load_library

_ACTIVATIONS = ("sigmoid", "prelu", "dice")
_Pointers = ctypes.Array[c_void_p]


class _Problem(Structure):
    """`Problem` of din_problem.h."""

    _fields_ = (
        ("candidates", c_int64),
        ("behaviors", c_int64),
        ("dim", c_int64),
        ("layers", c_int64),
        ("activation", c_int64),
        ("softmax", c_int64),
        ("threads", c_int64),
        ("widths", POINTER(c_int64)),
        ("windows", c_void_p),
        ("query", c_void_p),
        ("behavior", c_void_p),
        ("weights", POINTER(c_void_p)),
        ("biases", POINTER(c_void_p)),
        ("alphas", POINTER(c_void_p)),
        ("means", POINTER(c_void_p)),
        ("variances", POINTER(c_void_p)),
    )


def find_library(query: Tensor) -> ctypes.CDLL | None:
    """Returns the compiled code, if it is for such tensors and can be had."""
    if query.device.type != "cpu" or query.dtype != torch.float32:
        return None
    return load_library(SOURCES / "din_attention.cpp")


def forward(
    library: ctypes.CDLL,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    unit: ActivationUnit,
    normalize: Normalize,
) -> tuple[Tensor, Tensor]:
    """Does what `blocked.forward` does."""
    problem = _Call(query, behaviors, windows, unit, normalize)
    output, terms = torch.zeros_like(problem.query), query.new_zeros(2, query.shape[0])
    if normalize == "softmax":
        # of an empty window
        terms[0] = -torch.inf
    problem.run(library.din_forward, output, terms)
    return output, terms


def backward(
    library: ctypes.CDLL,
    gradient: Tensor,
    output: Tensor,
    terms: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    unit: ActivationUnit,
    normalize: Normalize,
) -> Gradients:
    """Does what `blocked.backward` does."""
    problem = _Call(query, behaviors, windows, unit, normalize)
    upstream = [tensor.contiguous() for tensor in (gradient, output, terms)]
    query_gradient, behaviors_gradient = map(torch.zeros_like, (problem.query, problem.behaviors))
    weights, biases, alphas = (
        [torch.empty(tensor.shape, dtype=tensor.dtype) for tensor in tensors]
        for tensors in (unit.weights, unit.biases, unit.alphas)
    )
    problem.run(
        library.din_backward,
        *(*upstream, query_gradient, behaviors_gradient),
        *(_pointers(tensors) for tensors in (weights, biases, alphas)),
    )
    return Gradients(query_gradient, behaviors_gradient, weights, biases, alphas)


class _Call:
    """Inputs in the layout that C reads; holds the tensors as long as the pointers live."""

    def __init__(
        self,
        query: Tensor,
        behaviors: Tensor,
        windows: Tensor,
        unit: ActivationUnit,
        normalize: Normalize,
    ) -> None:
        self.query, self.behaviors = query.contiguous(), behaviors.contiguous()
        self.windows = windows.contiguous()
        widths = [len(bias) for bias in unit.biases[:-1]]
        self.parts = [
            [tensor.contiguous() for tensor in tensors]
            for tensors in (
                unit.weights,
                unit.biases,
                unit.alphas,
                [moments.mean for moments in unit.moments],
                [moments.variance for moments in unit.moments],
            )
        ]
        self.problem = _Problem(
            *(query.shape[0], behaviors.shape[0], query.shape[1], len(widths)),
            _ACTIVATIONS.index(unit.activation),
            normalize == "softmax",
            torch.get_num_threads(),
            (c_int64 * len(widths))(*widths),
            *(tensor.data_ptr() for tensor in (self.windows, self.query, self.behaviors)),
            *map(_pointers, self.parts),
        )

    def run(self, function: Callable[..., int], *arguments: Tensor | _Pointers) -> None:
        """Calls a function with the problem and more arguments.

        Raises:
            MemoryError: there is no memory for its work.
        """
        passed = [c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments]
        if function(ctypes.byref(self.problem), *passed):
            raise MemoryError(
                "din_attention: no memory, or no thread, for the attention on the CPU"
            )


def _pointers(tensors: Sequence[Tensor]) -> _Pointers:
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
