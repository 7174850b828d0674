"""DIN's attention in training with Dice: plain differentiable PyTorch.

Dice takes its statistics over all pairs of the batch, layer after layer, so no part of the batch
can be finished before the rest, and every pair's activations stay in memory for the backward.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from ranker_kernels.din_attention.first_layer import collapse
from ranker_kernels.din_attention.unit import DICE_EPSILON, ActivationUnit, Moments, Normalize
from ranker_kernels.din_attention.windows import Pairs, expand_windows, softmax_terms

# from pre-activations [P, H] to mean and biased variance [H], with gradient
ComputeMoments = Callable[[Tensor], tuple[Tensor, Tensor]]


def moments_of_pairs(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `[H]` over pairs `[P, H]`; zeros if there is none."""
    count = max(z.shape[0], 1)
    mean = z.sum(0) / count
    return mean, (z - mean).square().sum(0) / count


def attend_with_batch_moments(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    unit: ActivationUnit,
    normalize: Normalize,
    compute_moments: ComputeMoments,
) -> tuple[Tensor, tuple[Moments, ...]]:
    """Pools behaviours with Dice units that use, and return, the statistics of this batch."""
    pairs = expand_windows(windows)
    selected = behaviors[pairs.behavior]
    z = _first_layer(query, selected, pairs, unit)
    moments: list[Moments] = []
    for alpha, weight, bias in zip(unit.alphas, unit.weights[1:], unit.biases[1:], strict=True):
        mean, variance = compute_moments(z)
        moments.append(Moments(mean.detach(), variance.detach()))
        gate = torch.sigmoid((z - mean) * torch.rsqrt(variance + DICE_EPSILON))
        z = linear(z * (alpha + (1 - alpha) * gate), weight, bias)
    weights = z[:, 0]
    if normalize == "softmax":
        scores = weights / query.shape[1] ** 0.5
        maximum, total = softmax_terms(scores, pairs)
        weights = torch.exp(scores - maximum[pairs.candidate]) / total[pairs.candidate]
    pooled = torch.zeros_like(query).index_add(0, pairs.candidate, weights[:, None] * selected)
    return pooled, tuple(moments)


def _first_layer(query: Tensor, selected: Tensor, pairs: Pairs, unit: ActivationUnit) -> Tensor:
    first = collapse(unit.weights[0])
    of_candidate = linear(query, first.candidate, unit.biases[0])[pairs.candidate]
    inputs = torch.cat([selected, query[pairs.candidate] * selected], dim=1)
    return of_candidate + linear(inputs, torch.cat([first.behavior, first.product], dim=1))
