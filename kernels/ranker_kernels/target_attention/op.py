"""Registration of the attention as a `torch.library` op with a fake and a backward."""

from typing import Any

import torch
from torch import Tensor

from ranker_kernels.ops import Op
from ranker_kernels.target_attention import blocked, compiled, selected
from ranker_kernels.target_attention.gradients import Gradients


def _attend(
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    windows: Tensor | None,
    index: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Returns the output `[C, H, V]` and log sum exp of the scores `[C, H]`."""
    inputs = _promote(query, keys, values, bias)
    seen = windows if index is None else index
    assert seen is not None
    library = compiled.find_library(inputs[0], selects=index is not None)
    if library is not None:
        return compiled.forward(library, *inputs, seen)
    return (blocked if index is None else selected).forward(*inputs, seen)


def _attend_backward(
    gradient: Tensor,
    output: Tensor,
    normalizer: Tensor,
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    windows: Tensor | None,
    index: Tensor | None,
) -> list[Tensor]:
    """Returns the gradients of query, keys, values and bias, of those that are given."""
    inputs = (gradient, output, normalizer, *_promote(query, keys, values, bias))
    seen = windows if index is None else index
    assert seen is not None
    library = compiled.find_library(inputs[3], selects=index is not None)
    if library is not None:
        grads = compiled.backward(library, *inputs, seen)
    else:
        grads = (blocked if index is None else selected).backward(*inputs, seen)
    return _list(grads, query, keys, values, bias)


attend = Op("target_attention", _attend)
attend_backward = Op("target_attention_backward", _attend_backward)


@attend.register_cuda
def attend_with_triton(*inputs: Any) -> tuple[Tensor, Tensor]:
    """The same with Triton, where its kernels take the shapes and dtypes."""
    # Triton is imported where it runs; a CPU installation does without
    from ranker_kernels.target_attention import launch

    if not launch.supports(*inputs[:4]):
        return _attend(*inputs)
    return launch.forward(*inputs, tiles=launch.choose_tiles(*inputs[:4]))


@attend_backward.register_cuda
def differentiate_with_triton(
    gradient: Tensor, output: Tensor, normalizer: Tensor, *inputs: Any
) -> list[Tensor]:
    """The same with Triton, where its kernels take the shapes and dtypes."""
    from ranker_kernels.target_attention import launch

    upstream = (gradient, output, normalizer)
    if not launch.supports(*inputs[:4]):
        return _attend_backward(*upstream, *inputs)
    gradients = launch.backward(*upstream, *inputs, tiles=launch.choose_tiles(*inputs[:4]))
    return _list(gradients, *inputs[:4])


def _list(gradients: Gradients, *inputs: Tensor | None) -> list[Tensor]:
    """Lists the gradients of what is given, with its dtypes."""
    return [
        grad.to(tensor.dtype)
        for grad, tensor in zip(gradients, inputs, strict=True)
        if grad is not None and tensor is not None
    ]


def _promote(
    query: Tensor, keys: Tensor | None, values: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Half precision is summed in float32."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    return (
        query.to(dtype),
        None if keys is None else keys.to(dtype),
        values.to(dtype),
        None if bias is None else bias.to(dtype),
    )


@attend.register_fake
def _(query: Tensor, keys: Tensor | None, values: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(query.dtype, torch.float32)
    shape = query.shape[:2]
    return (
        query.new_empty(*shape, values.shape[1], dtype=dtype),
        query.new_empty(shape, dtype=dtype),
    )


@attend_backward.register_fake
def _(gradient: Tensor, output: Tensor, normalizer: Tensor, *inputs: Any) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in inputs[:4] if tensor is not None]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.given = [tensor is not None for tensor in inputs[:4]]
    ctx.save_for_backward(*output, *inputs)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grads = iter(attend_backward(gradient, *ctx.saved_tensors))
    return *(next(grads) if given else None for given in ctx.given), None, None


attend.register_autograd(_differentiate, setup_context=_save)
# on GPUs the operands are cast before: autocast.py
attend.register_autocast("cpu", torch.float32)
