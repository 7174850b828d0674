"""A linear layer on CPUs in compiled code, where PyTorch's own is slow.

PyTorch multiplies float32 matrices with MKL, which leaves AVX-512 alone on processors that are not
Intel's. There `native/linear.cpp` is more than twice as fast; everywhere else, and for whatever it
does not cover, this is `torch.nn.functional.linear`.
"""

import ctypes
import functools
from ctypes import c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ranker_kernels.native import SOURCES, load_library

_SOURCE = SOURCES / "linear.cpp"
# below, what surrounds a call costs more than it saves
_LEAST_OUTPUTS = 8
_LEAST_PRODUCTS = 1 << 19
# a thread that joins for less work than that is not worth waking
_PRODUCTS_OF_A_THREAD = 1 << 19


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns inputs weight^T + bias.

    In compiled code an output depends on its row and the weights alone, bit by bit, and gradients
    do not depend on the number of threads. A gradient of a gradient is PyTorch's.

    Args:
        inputs: `[*, I]`.
        weight: `[O, I]`.
        bias: `[O]`.

    Returns:
        `[*, O]`.
    """
    covered = not _is_watched() and _is_covered(inputs, weight, bias)
    library = find_library() if covered else None
    if library is None:
        return nn.functional.linear(inputs, weight, bias)
    rows = inputs if inputs.ndim == 2 else inputs.reshape(-1, inputs.shape[-1])
    output: Tensor = _Linear.apply(library, rows, weight, bias)  # type: ignore[no-untyped-call]
    return output if inputs.ndim == 2 else output.view(*inputs.shape[:-1], -1)


def find_library() -> ctypes.CDLL | None:
    """Returns the compiled code, or None where it cannot be had."""
    return load_library(_SOURCE, instead="PyTorch does its work, half as fast")


@functools.cache
def is_faster_here() -> bool:
    """Whether PyTorch's products of this machine leave AVX-512 unused."""
    return (
        torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "GenuineIntel" not in _read_processors()
    )


def _read_processors() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        # not Linux: nothing is known of the processor
        return "GenuineIntel"


def _is_watched() -> bool:
    """Whether what runs is recorded, exported or transformed: that takes PyTorch's own ops."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or _get_current_dispatch_mode() is not None
    )


def _is_covered(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether compiled code takes such tensors, and gains by it."""
    return (
        is_faster_here()
        # neither a tracer's stand-in nor another kind of tensor
        and type(inputs) is Tensor
        and type(weight) in (nn.Parameter, Tensor)
        and all(x is None or _is_plain(x) for x in (inputs, weight, bias))
        # PyTorch tells what does not fit
        and inputs.ndim >= 2
        and weight.shape[1:] == inputs.shape[-1:]
        and (bias is None or bias.shape == weight.shape[:1])
        and inputs.stride(-1) == 1
        and weight.is_contiguous()
        and (bias is None or bias.is_contiguous())
        and weight.shape[0] >= _LEAST_OUTPUTS
        and inputs.numel() * weight.shape[0] >= _LEAST_PRODUCTS
        and not torch.is_autocast_enabled("cpu")
    )


def _is_plain(tensor: Tensor) -> bool:
    """Whether the numbers lie in memory as they are read: neither sparse nor lazily negated."""
    return (
        tensor.is_cpu
        and tensor.dtype == torch.float32
        and tensor.layout == torch.strided
        and not tensor.is_neg()
    )


class _Linear(torch.autograd.Function):
    """Rows `[R, I]` to `[R, O]`."""

    @staticmethod
    def forward(
        ctx: Any, library: ctypes.CDLL, rows: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.library = library
        ctx.save_for_backward(rows, weight)
        output = rows.new_empty(rows.shape[0], weight.shape[0])
        _call(library.linear_forward, (rows, weight, bias, output), rows, weight, rows.stride(0))
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        _, needs_rows, needs_weight, needs_bias = ctx.needs_input_grad
        of_rows = of_weight = of_bias = None
        batched = torch._C._functorch.is_legacy_batchedtensor(gradient)
        if torch.is_grad_enabled() or batched or _is_watched():
            # somebody differentiates this too, or asks for many gradients at once
            of_rows = gradient @ weight if needs_rows else None
            of_weight = gradient.t() @ rows if needs_weight else None
            of_bias = gradient.sum(0) if needs_bias else None
            return None, of_rows, of_weight, of_bias
        gradient = gradient.resolve_neg().contiguous()
        if needs_rows:
            of_rows = torch.empty_like(rows, memory_format=torch.contiguous_format)
            _call(ctx.library.linear_input_gradient, (gradient, weight, of_rows), rows, weight)
        if needs_weight:
            of_weight = torch.empty_like(weight)
            of_bias = weight.new_empty(weight.shape[0]) if needs_bias else None
            _call(
                ctx.library.linear_weight_gradient,
                (gradient, rows, of_weight, of_bias),
                rows,
                weight,
                rows.stride(0),
            )
        elif needs_bias:
            of_bias = gradient.sum(0)
        return None, of_rows, of_weight, of_bias


def _call(
    function: Any, tensors: tuple[Tensor | None, ...], rows: Tensor, weight: Tensor, *step: int
) -> None:
    """Calls a function of linear.cpp: tensors, the sizes of a layer, how far apart rows lie."""
    products = rows.numel() * weight.shape[0]
    threads = max(1, min(torch.get_num_threads(), products // _PRODUCTS_OF_A_THREAD))
    sizes = (*rows.shape, weight.shape[0], *step, threads)
    pointers = [c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
    if function(*pointers, *map(c_int64, sizes)):
        raise MemoryError(f"no memory for the products of a linear layer: {list(rows.shape)}")
