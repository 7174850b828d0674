"""Workloads of `din_attention` against the padded formulation that public libraries use."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.workload import Workload
from ranker_kernels.din_attention import Activation, ActivationUnit, din_attention
from ranker_kernels.din_attention.reference import din_attention_reference
from ranker_kernels.din_attention.unit import DICE_EPSILON
from ranker_kernels.din_attention.windows import Pairs, expand_windows

NUM_CANDIDATES, DIM, HIDDEN = 1024, 32, (80, 40)


def build_workloads() -> Iterator[Workload]:
    """Yields the workloads one after the other; softmax and 80-40-1, as in the authors' code."""
    generator = torch.Generator().manual_seed(2026)
    skewed = torch.randn(NUM_CANDIDATES, generator=generator).mul(0.95).add(3.45).exp()
    lengths = skewed.round().clamp(1, 200).long()
    even = torch.full((NUM_CANDIDATES,), 50)
    requests = NUM_CANDIDATES // 8
    yield _workload("A1: lengths 1 to 200, mean 47", "sigmoid", _consecutive(lengths))
    yield _workload("A2: all lengths 50, nothing padded", "sigmoid", _consecutive(even))
    shared = _consecutive(lengths[:requests]).repeat_interleave(8, dim=0)
    yield _workload("A3: as A1, 8 candidates share a history", "sigmoid", shared)
    yield _workload("A4: as A1, Dice in training", "dice", _consecutive(lengths))


def _consecutive(lengths: Tensor) -> Tensor:
    ends = lengths.cumsum(0)
    return torch.stack([ends - lengths, ends], dim=1)


def _workload(name: str, activation: Activation, windows: Tensor) -> Workload:
    generator = torch.Generator().manual_seed(7)
    widths = [4 * DIM, *HIDDEN, 1]
    weights = [
        torch.randn(n, m, generator=generator) * m**-0.5 for m, n in itertools.pairwise(widths)
    ]
    biases = [torch.randn(n, generator=generator) * 0.1 for n in widths[1:]]
    alphas = [torch.randn(n, generator=generator) * 0.1 for n in HIDDEN]
    query = torch.randn(len(windows), DIM, generator=generator)
    behaviors = torch.randn(int(windows.max()), DIM, generator=generator)
    pairs = expand_windows(windows)

    def unit(leaves: Sequence[Tensor]) -> ActivationUnit:
        return ActivationUnit(
            activation=activation,
            weights=tuple(leaves[2:5]),
            biases=tuple(leaves[5:8]),
            alphas=tuple(leaves[8:]),
        )

    def attend(leaves: Sequence[Tensor]) -> Tensor:
        return din_attention(leaves[0], leaves[1], windows, unit(leaves), normalize="softmax")[0]

    def oracle(leaves: Sequence[Tensor]) -> Tensor:
        return din_attention_reference(
            leaves[0], leaves[1], windows, unit(leaves), normalize="softmax"
        )[0]

    return Workload(
        name=name,
        leaves=(query, behaviors, *weights, *biases, *(alphas if activation == "dice" else ())),
        oracle=oracle,
        variants={
            "padded, [q; k; q - k; q * k]": lambda leaves: _padded(
                leaves[0], leaves[1], windows, pairs, unit(leaves)
            ),
            "din_attention": attend,
        },
    )


def _padded(
    query: Tensor, behaviors: Tensor, windows: Tensor, pairs: Pairs, unit: ActivationUnit
) -> Tensor:
    lengths = windows[:, 1] - windows[:, 0]
    longest = int(lengths.max())
    mask = torch.arange(longest) < lengths[:, None]  # [C, L]
    slots = mask.flatten().nonzero()[:, 0]
    rows = behaviors if len(slots) == len(behaviors) else behaviors[pairs.behavior]
    padded = rows.new_zeros(mask.numel(), DIM).index_copy(0, slots, rows).view(*mask.shape, DIM)
    queries = query[:, None].expand_as(padded)
    hidden = torch.cat([queries, padded, queries - padded, queries * padded], dim=-1)
    for layer, (weight, bias) in enumerate(zip(unit.weights[:-1], unit.biases[:-1], strict=True)):
        hidden = linear(hidden, weight, bias)
        if unit.activation == "sigmoid":
            hidden = hidden.sigmoid()
        else:
            hidden = _masked_dice(hidden, mask, unit.alphas[layer])
    scores = linear(hidden, unit.weights[-1], unit.biases[-1])[..., 0] / DIM**0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)
    return (weights[..., None] * padded).sum(1)


def _masked_dice(hidden: Tensor, mask: Tensor, alpha: Tensor) -> Tensor:
    # statistics of the valid positions only, else the two would not compute the same
    variance, mean = torch.var_mean(hidden[mask], dim=0, correction=0)
    gate = torch.sigmoid((hidden - mean) * torch.rsqrt(variance + DICE_EPSILON))
    return gate * hidden + (1 - gate) * alpha * hidden
