"""DIN's attention on CPUs in compiled code (`native/din_attention.cpp`), for float32."""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from ranker_kernels.din_attention.unit import (
    ActivationUnit,
    Gradients,
    Layers,
    Moments,
    Normalize,
)
from ranker_kernels.din_attention.windows import line_of_moments
from ranker_kernels.native import OUTSIDE, SOURCES, load_library

_SOURCE = SOURCES / "din_attention.cpp"
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
        ("scored", c_int64),
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


class _Outputs(Structure):
    """`Outputs` of din_unit.h."""

    _fields_ = tuple(
        (name, POINTER(c_void_p)) for name in ("weights", "biases", "alphas", "means", "variances")
    )


def find_library(query: Tensor) -> ctypes.CDLL | None:
    """Returns the compiled code, if it is for such tensors and can be had."""
    if query.device.type != "cpu" or query.dtype != torch.float32:
        return None
    return load_library(_SOURCE)


def forward(
    library: ctypes.CDLL,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    unit: ActivationUnit,
    normalize: Normalize,
) -> tuple[Tensor, Tensor]:
    """Does what `blocked.forward` does."""
    problem = _Call(query, behaviors, windows, unit, normalize=normalize)
    output, terms = torch.empty_like(problem.query), query.new_empty(2, query.shape[0])
    if normalize != "softmax":
        terms.zero_()
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
    problem = _Call(query, behaviors, windows, unit, normalize=normalize)
    upstream = [tensor.contiguous() for tensor in (gradient, output, terms)]
    return problem.differentiate(library.din_backward, *upstream)


def forward_moments(
    library: ctypes.CDLL, query: Tensor, behaviors: Tensor, windows: Tensor, layers: Layers
) -> Moments:
    """Does what `blocked.forward_moments` does."""
    problem = _Call(query, behaviors, windows, layers, scored=False)
    moments = Moments(*(query.new_empty(len(layers.biases[-1])) for _ in range(2)))
    problem.run(library.din_moments, *moments)
    return moments


def backward_moments(
    library: ctypes.CDLL,
    gradient: Moments,
    mean: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    layers: Layers,
) -> Gradients:
    """Does what `blocked.backward_moments` does."""
    problem = _Call(query, behaviors, windows, layers, scored=False)
    return problem.differentiate(
        library.din_moments_backward, *line_of_moments(gradient, mean, windows)
    )


class _Call:
    """Inputs in the layout that C reads; holds the tensors as long as the pointers live."""

    def __init__(
        self,
        query: Tensor,
        behaviors: Tensor,
        windows: Tensor,
        layers: Layers,
        *,
        normalize: Normalize = "none",
        scored: bool = True,
    ) -> None:
        self.query, self.behaviors = query.contiguous(), behaviors.contiguous()
        self.windows = windows.contiguous()
        # the last of the layers is the score's, or hidden as the others
        widths = [len(bias) for bias in layers.biases[: -1 if scored else None]]
        self.parts = [
            [tensor.contiguous() for tensor in tensors]
            for tensors in (
                layers.weights,
                layers.biases,
                layers.alphas,
                [moments.mean for moments in layers.moments],
                [moments.variance for moments in layers.moments],
            )
        ]
        self.problem = _Problem(
            *(query.shape[0], behaviors.shape[0], query.shape[1], len(widths)),
            _ACTIVATIONS.index(layers.activation),
            normalize == "softmax",
            scored,
            torch.get_num_threads(),
            (c_int64 * len(widths))(*widths),
            *(tensor.data_ptr() for tensor in (self.windows, self.query, self.behaviors)),
            *map(_pointers, self.parts),
        )

    def differentiate(self, function: Callable[..., int], *upstream: Tensor) -> Gradients:
        """Calls a function that writes the gradients of everything."""
        query, behaviors = map(torch.empty_like, (self.query, self.behaviors))
        parts = [[torch.empty_like(tensor) for tensor in tensors] for tensors in self.parts]
        outputs = _Outputs(*map(_pointers, parts))
        self.run(function, *upstream, query, behaviors, ctypes.byref(outputs))
        weights, biases, alphas, means, variances = parts
        moments = [Moments(*pair) for pair in zip(means, variances, strict=True)]
        return Gradients(query, behaviors, weights, biases, alphas, moments)

    def run(self, function: Callable[..., int], *arguments: Any) -> None:
        """Calls a function with the problem and more arguments.

        Raises:
            IndexError: windows point outside the behaviours.
            MemoryError: there is no memory for its work.
        """
        passed = [c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments]
        failure = function(ctypes.byref(self.problem), *passed)
        if failure == OUTSIDE:
            raise IndexError(
                f"din_attention: windows point outside the {len(self.behaviors)} behaviours"
            )
        if failure:
            raise MemoryError(
                "din_attention: no memory, or no thread, for the attention on the CPU"
            )


def _pointers(tensors: Sequence[Tensor]) -> _Pointers:
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
