"""Registration of the sums as a `torch.library` op with a fake and a backward."""

from typing import Any

import torch
from torch import Tensor

from ranker_kernels.ops import Op
from ranker_kernels.segment_sum import expanded


def _sum(values: Tensor, windows: Tensor) -> Tensor:
    """Returns the sum of each window's rows, `[C, D]`."""
    return expanded.forward(_promote(values), windows).to(values.dtype)


def _spread(gradient: Tensor, windows: Tensor, num_rows: int) -> Tensor:
    """Returns for each row the sum of the gradients of the windows that cover it, `[N, D]`."""
    return expanded.backward(_promote(gradient), windows, num_rows).to(gradient.dtype)


sum_windows = Op("segment_sum", _sum)
spread_gradient = Op("segment_sum_backward", _spread)


@sum_windows.register_cuda
def sum_with_triton(values: Tensor, windows: Tensor) -> Tensor:
    """The same with Triton, for 16 and 32-bit floats."""
    # Triton is imported where it runs; a CPU installation does without
    from ranker_kernels.segment_sum import launch
    from ranker_kernels.triton_kernels import are_supported

    if not are_supported(values):
        return _sum(values, windows)
    return launch.forward(values, windows).to(values.dtype)


@spread_gradient.register_cuda
def spread_with_triton(gradient: Tensor, windows: Tensor, num_rows: int) -> Tensor:
    """The same with Triton, for 16 and 32-bit floats."""
    from ranker_kernels.segment_sum import launch
    from ranker_kernels.triton_kernels import are_supported

    if not are_supported(gradient):
        return _spread(gradient, windows, num_rows)
    return launch.backward(gradient, windows, num_rows)


def _promote(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@sum_windows.register_fake
def _(values: Tensor, windows: Tensor) -> Tensor:
    return values.new_empty(windows.shape[0], values.shape[1])


@spread_gradient.register_fake
def _(gradient: Tensor, windows: Tensor, num_rows: int) -> Tensor:
    return gradient.new_empty(num_rows, gradient.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    values, windows = inputs
    ctx.num_rows = values.shape[0]
    ctx.save_for_backward(windows)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    (windows,) = ctx.saved_tensors
    return spread_gradient(gradient.contiguous(), windows, ctx.num_rows), None


sum_windows.register_autograd(_differentiate, setup_context=_save)
