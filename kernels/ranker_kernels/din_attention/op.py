"""Registration of the attention as a `torch.library` op with a fake and a backward.

Ops know tensors and lists of tensors, so the unit travels in parts: `weights`, `biases` and
`alphas` as in `ActivationUnit`, its moments as `means` and `variances`.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ranker_kernels.din_attention import blocked, compiled
from ranker_kernels.din_attention.unit import (
    Activation,
    ActivationUnit,
    Gradients,
    Moments,
    Normalize,
    compute_dtype,
)
from ranker_kernels.ops import Op


def _attend(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    alphas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    activation: str,
    normalize: str,
) -> tuple[Tensor, Tensor]:
    """Returns the output `[C, D]` and the softmax terms `[2, C]` that the backward needs."""
    unit = _unit(weights, biases, alphas, means, variances, activation)
    dtype = compute_dtype(query, behaviors)
    inputs = (query.to(dtype), behaviors.to(dtype), windows, unit.to(dtype))
    mode = cast(Normalize, normalize)
    library = compiled.find_library(inputs[0])
    if library is None:
        output, terms = blocked.forward(*inputs, mode)
    else:
        output, terms = compiled.forward(library, *inputs, mode)
    return output.to(behaviors.dtype), terms


def _attend_backward(
    gradient: Tensor,
    output: Tensor,
    terms: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    alphas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    activation: str,
    normalize: str,
) -> list[Tensor]:
    """Returns the gradients of query, behaviours, weights, biases, alphas, means, variances."""
    unit = _unit(weights, biases, alphas, means, variances, activation)
    dtype = compute_dtype(query, behaviors)
    inputs = (
        *(gradient.to(dtype), output.to(dtype), terms),
        *(query.to(dtype), behaviors.to(dtype), windows, unit.to(dtype)),
    )
    mode = cast(Normalize, normalize)
    library = compiled.find_library(inputs[3])
    if library is None:
        gradients = blocked.backward(*inputs, mode)
    else:
        gradients = compiled.backward(library, *inputs, mode)
    return flatten(gradients, [query, behaviors, *weights, *biases, *alphas, *means, *variances])


attend = Op("din_attention", _attend)
attend_backward = Op("din_attention_backward", _attend_backward)


@attend.register_cuda
def attend_with_triton(
    query: Tensor, behaviors: Tensor, windows: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """The same with Triton, where its kernels take the shapes and dtypes."""
    # Triton is imported where it runs; a CPU installation does without
    from ranker_kernels.din_attention import launch

    *parts, normalize = rest
    unit = _unit(*parts)
    if not launch.supports(query, behaviors, unit):
        return _attend(query, behaviors, windows, *rest)
    spread = launch.choose_launch(behaviors, unit.activation)
    return launch.forward(query, behaviors, windows, unit, normalize, spread)


@attend_backward.register_cuda
def differentiate_with_triton(
    gradient: Tensor,
    output: Tensor,
    terms: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    *rest: Any,
) -> list[Tensor]:
    """The same with Triton, where its kernels take the shapes and dtypes."""
    from ranker_kernels.din_attention import launch

    *parts, normalize = rest
    unit = _unit(*parts)
    if not launch.supports(query, behaviors, unit):
        return _attend_backward(gradient, output, terms, query, behaviors, windows, *rest)
    spread = launch.choose_launch(behaviors, unit.activation)
    upstream = (gradient, output, terms)
    gradients = launch.backward(*upstream, query, behaviors, windows, unit, normalize, spread)
    *lists, _activation = parts
    return flatten(gradients, [query, behaviors, *(part for parts in lists for part in parts)])


def flatten(gradients: Gradients, learned: Sequence[Tensor]) -> list[Tensor]:
    """Lists the gradients in the order, and with the dtypes, of what they belong to.

    They are contiguous, since that is what the fake promises to a compiler.
    """
    flat = [gradients.query, gradients.behaviors]
    flat += [*gradients.weights, *gradients.biases, *gradients.alphas]
    flat += [moments.mean for moments in gradients.moments]
    flat += [moments.variance for moments in gradients.moments]
    return [grad.to(tensor.dtype).contiguous() for grad, tensor in zip(flat, learned, strict=True)]


def _unit(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    alphas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    activation: str,
) -> ActivationUnit:
    return ActivationUnit(
        activation=cast(Activation, activation),
        weights=tuple(weights),
        biases=tuple(biases),
        alphas=tuple(alphas),
        moments=tuple(map(Moments, means, variances)),
    )


@attend.register_fake
def _(query: Tensor, behaviors: Tensor, *parts: Any) -> tuple[Tensor, Tensor]:
    terms = query.new_empty(2, query.shape[0], dtype=compute_dtype(query, behaviors))
    return query.new_empty(query.shape, dtype=behaviors.dtype), terms


@attend_backward.register_fake
def _(
    gradient: Tensor,
    output: Tensor,
    terms: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    alphas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    *parts: Any,
) -> list[Tensor]:
    learned = [query, behaviors, *weights, *biases, *alphas, *means, *variances]
    return [tensor.new_empty(tensor.shape) for tensor in learned]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, behaviors, windows, *lists, ctx.activation, ctx.normalize = inputs
    ctx.list_lengths = [len(tensors) for tensors in lists]
    ctx.save_for_backward(
        *output, query, behaviors, windows, *(tensor for tensors in lists for tensor in tensors)
    )
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
    output, terms, query, behaviors, windows, *flat = ctx.saved_tensors
    lists = regroup(flat, ctx.list_lengths)
    grad_query, grad_behaviors, *rest = attend_backward(
        gradient.contiguous(),
        *(output, terms, query, behaviors, windows),
        *lists,
        ctx.activation,
        ctx.normalize,
    )
    return grad_query, grad_behaviors, None, *regroup(rest, ctx.list_lengths), None, None


def regroup(flat: Sequence[Any], lengths: Sequence[int]) -> list[list[Any]]:
    """Cuts a list into lists of these lengths."""
    remaining = iter(flat)
    return [[next(remaining) for _ in range(length)] for length in lengths]


attend.register_autograd(_differentiate, setup_context=_save)
# on GPUs the operands are cast before: autocast.py
attend.register_autocast("cpu", torch.float32)
