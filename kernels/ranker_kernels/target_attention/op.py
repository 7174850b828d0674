"""Registration of the attention over windows as a `torch.library` op with a fake and a backward."""

from typing import Any

import torch
from torch import Tensor

from ranker_kernels.target_attention import blocked


@torch.library.custom_op("ranker_kernels::target_attention", mutates_args=())
def attend_windows(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, windows: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the output `[C, H, V]` and log sum exp of the scores `[C, H]`."""
    return blocked.forward(*_promote(query, keys, values, bias), windows)


@torch.library.custom_op("ranker_kernels::target_attention_backward", mutates_args=())
def attend_windows_backward(
    gradient: Tensor,
    output: Tensor,
    normalizer: Tensor,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    windows: Tensor,
) -> list[Tensor]:
    """Returns the gradients of query, keys, values and, if there is one, bias."""
    found = blocked.backward(
        gradient, output, normalizer, *_promote(query, keys, values, bias), windows
    )
    pairs = zip(found, (query, keys, values, bias), strict=True)
    return [
        grad.to(tensor.dtype) for grad, tensor in pairs if grad is not None and tensor is not None
    ]


def _promote(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Half precision is summed in float32."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    return (
        query.to(dtype),
        keys.to(dtype),
        values.to(dtype),
        None if bias is None else bias.to(dtype),
    )


@attend_windows.register_fake
def _(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, windows: Tensor
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(query.dtype, torch.float32)
    shape = query.shape[:2]
    return query.new_empty(*shape, values.shape[1], dtype=dtype), query.new_empty(
        shape, dtype=dtype
    )


@attend_windows_backward.register_fake
def _(
    gradient: Tensor,
    output: Tensor,
    normalizer: Tensor,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    windows: Tensor,
) -> list[Tensor]:
    return [torch.empty_like(t) for t in (query, keys, values, bias) if t is not None]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, bias, windows = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(*output, *tensors, bias, windows)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grads = attend_windows_backward(gradient, *ctx.saved_tensors)
    return *grads, *([] if ctx.has_bias else [None]), None


attend_windows.register_autograd(_differentiate, setup_context=_save)
