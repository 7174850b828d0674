"""DIN's attention written as in the paper, one candidate at a time: the oracle of the tests."""

import torch
from torch import Tensor

from ranker_kernels.din_attention.unit import DICE_EPSILON, ActivationUnit, Moments, Normalize


def din_attention_reference(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    unit: ActivationUnit,
    *,
    normalize: Normalize,
) -> tuple[Tensor, tuple[Moments, ...]]:
    """Computes the same as `din_attention`, slowly; any float dtype, differentiable."""
    histories = [behaviors[begin:end] for begin, end in windows.tolist()]
    lengths = [len(history) for history in histories]
    inputs = [
        torch.cat([q.expand_as(k), k, q - k, q * k], dim=1)
        for q, k in zip(query, histories, strict=True)
    ]
    hidden = torch.cat([behaviors.new_empty(0, 4 * query.shape[1]), *inputs])

    moments: list[Moments] = []
    for layer, (weight, bias) in enumerate(zip(unit.weights[:-1], unit.biases[:-1], strict=True)):
        hidden = hidden @ weight.T + bias
        if unit.activation == "sigmoid":
            hidden = hidden.sigmoid()
        elif unit.activation == "prelu":
            hidden = torch.where(hidden > 0, hidden, unit.alphas[layer] * hidden)
        else:
            given = unit.moments[layer] if unit.moments else None
            moments.append(given or Moments(hidden.mean(0), hidden.var(0, correction=0)))
            hidden = _dice(hidden, unit.alphas[layer], moments[-1])
    scores = (hidden @ unit.weights[-1].T + unit.biases[-1])[:, 0]

    outputs = [query[:0]]
    for history, score in zip(histories, torch.split(scores, lengths), strict=True):
        # softmax over sqrt(D) is the authors' code; the paper takes the scores as they are
        weights = score
        if normalize == "softmax":
            weights = torch.softmax(score / query.shape[1] ** 0.5, dim=0)
        outputs.append(weights[None] @ history)
    return torch.cat(outputs), () if unit.moments else tuple(moments)


def _dice(z: Tensor, alpha: Tensor, moments: Moments) -> Tensor:
    """DIN equation 3."""
    gate = torch.sigmoid((z - moments.mean) / torch.sqrt(moments.variance + DICE_EPSILON))
    return gate * z + (1 - gate) * alpha * z
