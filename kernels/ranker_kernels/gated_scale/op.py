"""Registration of the gated product as a `torch.library` op with a fake and a backward."""

from typing import Any

import torch
from torch import Tensor

from ranker_kernels.ops import Op


def _scale(logits: Tensor, hidden: Tensor, gamma: float) -> Tensor:
    """Returns gamma * sigmoid(logits) * hidden."""
    dtype = torch.promote_types(logits.dtype, hidden.dtype)
    return _gate(logits, dtype).mul_(hidden).mul_(gamma).to(dtype)


def _scale_backward(
    gradient: Tensor, logits: Tensor, hidden: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of the logits and of what is gated."""
    gate = _gate(logits, torch.promote_types(logits.dtype, hidden.dtype))
    scaled = gradient.to(gate.dtype) * gamma
    of_hidden = scaled * gate
    scaled.mul_(hidden)
    # scaled * gate * (1 - gate), in one pass
    of_logits = torch.ops.aten.sigmoid_backward.grad_input(scaled, gate, grad_input=scaled)
    return of_logits.to(logits.dtype), of_hidden.to(hidden.dtype)


scale = Op("gated_scale", _scale)
scale_backward = Op("gated_scale_backward", _scale_backward)


@scale.register_cuda
def scale_with_triton(logits: Tensor, hidden: Tensor, gamma: float) -> Tensor:
    """The same with Triton, for 16 and 32-bit floats."""
    # Triton is imported where it runs; a CPU installation does without
    from ranker_kernels.gated_scale import launch
    from ranker_kernels.triton_kernels import are_supported

    if not are_supported(logits, hidden):
        return _scale(logits, hidden, gamma)
    return launch.forward(logits, hidden, gamma)


@scale_backward.register_cuda
def differentiate_with_triton(
    gradient: Tensor, logits: Tensor, hidden: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """The same with Triton, for 16 and 32-bit floats."""
    from ranker_kernels.gated_scale import launch
    from ranker_kernels.triton_kernels import are_supported

    if not are_supported(gradient, logits, hidden):
        return _scale_backward(gradient, logits, hidden, gamma)
    return launch.backward(gradient, logits, hidden, gamma)


def _gate(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the sigmoid in at least float32; memory of its own, to compute in."""
    exact = logits.to(torch.promote_types(dtype, torch.float32))
    return torch.sigmoid(exact).contiguous()


@scale.register_fake
def _(logits: Tensor, hidden: Tensor, gamma: float) -> Tensor:
    dtype = torch.promote_types(logits.dtype, hidden.dtype)
    return hidden.new_empty(hidden.shape, dtype=dtype)


@scale_backward.register_fake
def _(gradient: Tensor, logits: Tensor, hidden: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape), hidden.new_empty(hidden.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
    logits, hidden, ctx.gamma = inputs
    ctx.save_for_backward(logits, hidden)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    return *scale_backward(gradient, *ctx.saved_tensors, ctx.gamma), None


scale.register_autograd(_differentiate, setup_context=_save)
