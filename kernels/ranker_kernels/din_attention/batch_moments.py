"""Statistics of Dice's pre-activations over all pairs of a batch, as a `torch.library` op.

Dice takes them layer after layer, so a layer needs those of the ones before it. Every pass computes
the activations anew, forward and backward: nothing of a pair is kept.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ranker_kernels.din_attention import blocked, compiled
from ranker_kernels.din_attention.op import flatten, regroup
from ranker_kernels.din_attention.unit import ActivationUnit, Layers, Moments, compute_dtype
from ranker_kernels.ops import Op


def pair_moments(
    query: Tensor, behaviors: Tensor, windows: Tensor, unit: ActivationUnit, given: list[Moments]
) -> Moments:
    """Returns mean and biased variance `[H]` of a hidden layer over the pairs of this batch.

    Args:
        query: candidates `[C, D]`.
        behaviors: `[N, D]`.
        windows: int64 `[C, 2]`.
        unit: of which the first layers count, one more than there are moments.
        given: moments of the layers before it.

    Returns:
        Zeros if there is no pair. Differentiable in everything, the given moments included.
    """
    depth = len(given)
    return Moments(
        *_moments(
            *(query, behaviors, windows),
            *(list(unit.weights[: depth + 1]), list(unit.biases[: depth + 1])),
            list(unit.alphas[:depth]),
            [moments.mean for moments in given],
            [moments.variance for moments in given],
        )
    )


def _forward(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    alphas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(query, behaviors)
    layers = _layers(weights, biases, alphas, means, variances).to(dtype)
    inputs = (query.to(dtype), behaviors.to(dtype), windows, layers)
    library = compiled.find_library(inputs[0])
    if library is None:
        mean, variance = blocked.forward_moments(*inputs)
    else:
        mean, variance = compiled.forward_moments(library, *inputs)
    return mean, variance


def _backward(
    mean_gradient: Tensor,
    variance_gradient: Tensor,
    mean: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    alphas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
) -> list[Tensor]:
    """Returns the gradients of query, behaviours, weights, biases, alphas, means, variances."""
    dtype = compute_dtype(query, behaviors)
    inputs = (
        *(Moments(mean_gradient, variance_gradient), mean),
        *(query.to(dtype), behaviors.to(dtype), windows),
        _layers(weights, biases, alphas, means, variances).to(dtype),
    )
    library = compiled.find_library(inputs[2])
    if library is None:
        gradients = blocked.backward_moments(*inputs)
    else:
        gradients = compiled.backward_moments(library, *inputs)
    return flatten(gradients, [query, behaviors, *weights, *biases, *alphas, *means, *variances])


_moments = Op("din_moments", _forward)
_moments_backward = Op("din_moments_backward", _backward)


@_moments.register_cuda
def find_with_triton(
    query: Tensor, behaviors: Tensor, windows: Tensor, *parts: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The same with Triton, where its kernels take the shapes and dtypes."""
    # Triton is imported where it runs; a CPU installation does without
    from ranker_kernels.din_attention import launch, launch_moments

    layers = _layers(*parts)
    if not launch_moments.supports(query, behaviors, layers):
        return _forward(query, behaviors, windows, *parts)
    spread = launch.choose_launch(behaviors, layers.activation)
    mean, variance = launch_moments.forward_moments(query, behaviors, windows, layers, spread)
    return mean, variance


@_moments_backward.register_cuda
def differentiate_with_triton(
    mean_gradient: Tensor,
    variance_gradient: Tensor,
    mean: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    *parts: Sequence[Tensor],
) -> list[Tensor]:
    """The same with Triton, where its kernels take the shapes and dtypes."""
    from ranker_kernels.din_attention import launch, launch_moments

    layers, inputs = _layers(*parts), (query, behaviors, windows)
    if not launch_moments.supports(query, behaviors, layers):
        return _backward(mean_gradient, variance_gradient, mean, *inputs, *parts)
    spread = launch.choose_launch(behaviors, layers.activation)
    gradient = Moments(mean_gradient, variance_gradient)
    gradients = launch_moments.backward_moments(gradient, mean, *inputs, layers, spread)
    return flatten(gradients, [query, behaviors, *(part for list_ in parts for part in list_)])


def _layers(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    alphas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
) -> Layers:
    return Layers(
        activation="dice",
        weights=tuple(weights),
        biases=tuple(biases),
        alphas=tuple(alphas),
        moments=tuple(map(Moments, means, variances)),
    )


@_moments.register_fake
def _(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *parts: Any,
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(query, behaviors)
    mean, variance = (biases[-1].new_empty(biases[-1].shape, dtype=dtype) for _ in range(2))
    return mean, variance


@_moments_backward.register_fake
def _(
    mean_gradient: Tensor,
    variance_gradient: Tensor,
    mean: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    *lists: Sequence[Tensor],
) -> list[Tensor]:
    learned = [query, behaviors, *(tensor for tensors in lists for tensor in tensors)]
    return [tensor.new_empty(tensor.shape) for tensor in learned]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, behaviors, windows, *lists = inputs
    ctx.list_lengths = [len(tensors) for tensors in lists]
    flat = [tensor for tensors in lists for tensor in tensors]
    ctx.save_for_backward(output[0], query, behaviors, windows, *flat)


def _differentiate(ctx: Any, mean_gradient: Tensor, variance_gradient: Tensor) -> tuple[Any, ...]:
    mean, query, behaviors, windows, *flat = ctx.saved_tensors
    lists = regroup(flat, ctx.list_lengths)
    grad_query, grad_behaviors, *rest = _moments_backward(
        mean_gradient, variance_gradient, mean, query, behaviors, windows, *lists
    )
    return grad_query, grad_behaviors, None, *regroup(rest, ctx.list_lengths)


_moments.register_autograd(_differentiate, setup_context=_save)
# on GPUs the operands are cast before: autocast.py
_moments.register_autocast("cpu", torch.float32)
