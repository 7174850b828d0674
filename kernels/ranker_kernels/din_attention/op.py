"""Registration of the attention as a `torch.library` op with a fake and a backward.

Ops know tensors and lists of tensors, so the unit travels in parts: `weights`, `biases` and
`alphas` as in `ActivationUnit`, its moments as `means` and `variances`.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ranker_kernels.din_attention import blocked
from ranker_kernels.din_attention.unit import (
    Activation,
    ActivationUnit,
    Moments,
    Normalize,
    compute_dtype,
)


@torch.library.custom_op("ranker_kernels::din_attention", mutates_args=())
def attend(
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
    output, terms = blocked.forward(
        query.to(dtype), behaviors.to(dtype), windows, unit.to(dtype), cast(Normalize, normalize)
    )
    return output.to(behaviors.dtype), terms


@torch.library.custom_op("ranker_kernels::din_attention_backward", mutates_args=())
def attend_backward(
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
    """Returns the gradients of query, behaviours, weights, biases and alphas, in this order."""
    unit = _unit(weights, biases, alphas, means, variances, activation)
    dtype = compute_dtype(query, behaviors)
    gradients = blocked.backward(
        gradient.to(dtype),
        output.to(dtype),
        terms,
        query.to(dtype),
        behaviors.to(dtype),
        windows,
        unit.to(dtype),
        cast(Normalize, normalize),
    )
    learned = [query, behaviors, *weights, *biases, *alphas]
    flat = [gradients.query, gradients.behaviors]
    flat += [*gradients.weights, *gradients.biases, *gradients.alphas]
    return [grad.to(tensor.dtype) for grad, tensor in zip(flat, learned, strict=True)]


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
    return torch.empty_like(query, dtype=behaviors.dtype), terms


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
    *parts: Any,
) -> list[Tensor]:
    learned = [query, behaviors, *weights, *biases, *alphas]
    return [torch.empty_like(tensor) for tensor in learned]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, behaviors, windows, *lists, ctx.activation, ctx.normalize = inputs
    ctx.list_lengths = [len(tensors) for tensors in lists]
    ctx.save_for_backward(
        *output, query, behaviors, windows, *(tensor for tensors in lists for tensor in tensors)
    )
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
    output, terms, query, behaviors, windows, *flat = ctx.saved_tensors
    lists = _regroup(flat, ctx.list_lengths)
    grad_query, grad_behaviors, *rest = attend_backward(
        gradient.contiguous(),
        *(output, terms, query, behaviors, windows),
        *lists,
        ctx.activation,
        ctx.normalize,
    )
    # moments are statistics, not weights: no gradient for the last two lists
    weights, biases, alphas, means, variances = _regroup(
        [*rest, *[None] * sum(ctx.list_lengths[3:])], ctx.list_lengths
    )
    lists = [weights, biases, alphas, means, variances]
    return grad_query, grad_behaviors, None, *lists, None, None


def _regroup(flat: Sequence[Any], lengths: Sequence[int]) -> list[list[Any]]:
    remaining = iter(flat)
    return [[next(remaining) for _ in range(length)] for length in lengths]


attend.register_autograd(_differentiate, setup_context=_save)
