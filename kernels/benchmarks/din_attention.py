"""Workloads of `din_attention` against the formulations of public libraries."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.workload import (
    Cost,
    Goal,
    Variant,
    Workload,
    compile_variant,
    draw_lengths,
    make_consecutive,
)
from ranker_kernels.din_attention import Activation, ActivationUnit, din_attention
from ranker_kernels.din_attention.reference import din_attention_reference
from ranker_kernels.din_attention.unit import DICE_EPSILON
from ranker_kernels.din_attention.windows import Pairs, expand_windows, softmax_terms

HIDDEN = (80, 40)
OURS = "din_attention"


def build_workloads(device: str) -> Iterator[Workload]:
    """Yields the workloads one after the other; softmax and 80-40-1, as in the authors' code."""
    lengths = draw_lengths(1024, mean_log=3.45, longest=200)
    even, requests = torch.full((1024,), 50), 128
    shared = make_consecutive(lengths[:requests]).repeat_interleave(8, dim=0)
    yield _build("A1: lengths 1 to 200, mean 47", make_consecutive(lengths), device, compiled=True)
    yield _build("A2: all lengths 50, nothing padded", make_consecutive(even), device)
    yield _build("A3: as A1, 8 candidates share a history", shared, device)
    windows = make_consecutive(lengths)
    yield _build("A4: as A1, Dice in training", windows, device, activation="dice")


def build_goals(device: str) -> Iterator[Workload]:
    """Yields DIN-G1: 4,096 candidates, lengths 1 to 500 with mean 99, width 64, bfloat16.

    Then the same in float32, which is what a model gives the op.
    """
    windows = make_consecutive(draw_lengths(4096, mean_log=4.2, longest=500))
    yield _build(
        "DIN-G1: lengths 1 to 500, mean 99, bfloat16",
        windows,
        device,
        dim=64,
        dtype=torch.bfloat16,
        compiled=True,
        goal=Goal(
            name="G1",
            variant=OURS,
            forward=0.045,
            both=0.200,
            expected_forward=0.065,
            expected_both=0.370,
            ratios={"jagged": 7, "padded to the longest": 25, "jagged, torch.compile": 3},
        ),
    )
    yield _build("DIN-G1 in float32", windows, device, dim=64)


def _build(
    name: str,
    windows: Tensor,
    device: str,
    *,
    activation: Activation = "sigmoid",
    dim: int = 32,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    goal: Goal | None = None,
) -> Workload:
    generator = torch.Generator().manual_seed(7)
    widths = [4 * dim, *HIDDEN, 1]
    weights = [
        torch.randn(n, m, generator=generator) * m**-0.5 for m, n in itertools.pairwise(widths)
    ]
    biases = [torch.randn(n, generator=generator) * 0.1 for n in widths[1:]]
    alphas = [torch.randn(n, generator=generator) * 0.1 for n in HIDDEN]
    query = torch.randn(len(windows), dim, generator=generator)
    behaviors = torch.randn(int(windows.max()), dim, generator=generator)
    leaves = [query, behaviors, *weights, *biases, *(alphas if activation == "dice" else ())]
    windows = windows.to(device)
    pairs = expand_windows(windows)
    longest = int((windows[:, 1] - windows[:, 0]).max())

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

    def padded(leaves: Sequence[Tensor]) -> Tensor:
        return _padded(leaves[0], leaves[1], windows, pairs, longest, unit(leaves))

    def jagged(leaves: Sequence[Tensor]) -> Tensor:
        return _jagged(leaves[0], leaves[1], pairs, unit(leaves))

    variants: dict[str, Variant] = {"padded to the longest": padded}
    if activation == "sigmoid":
        variants["jagged"] = jagged
    if compiled:
        variants["padded, torch.compile"] = compile_variant(padded)
        variants["jagged, torch.compile"] = compile_variant(jagged)
    variants[OURS] = attend
    if compiled:
        variants[f"{OURS}, torch.compile"] = compile_variant(attend)
    given = tuple(leaf.to(device, dtype) for leaf in leaves)
    read = given[0].nbytes + given[1].nbytes
    # the first layer as one matrix of each candidate
    flops = len(pairs.candidate) * 2.0 * (dim * HIDDEN[0] + HIDDEN[0] * HIDDEN[1] + HIDDEN[1] + dim)
    return Workload(
        name=name,
        leaves=given,
        oracle=oracle,
        variants=variants,
        forward=Cost(read + given[0].nbytes, flops),
        both=Cost(3 * read + given[0].nbytes, 4 * flops),
        goal=goal,
    )


def _padded(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    pairs: Pairs,
    longest: int,
    unit: ActivationUnit,
) -> Tensor:
    dim = query.shape[1]
    lengths = windows[:, 1] - windows[:, 0]
    mask = torch.arange(longest, device=query.device) < lengths[:, None]  # [C, L]
    slots = pairs.candidate * longest + pairs.behavior - windows[pairs.candidate, 0]
    rows = behaviors[pairs.behavior]
    padded = rows.new_zeros(mask.numel(), dim).index_copy(0, slots, rows).view(*mask.shape, dim)
    queries = query[:, None].expand_as(padded)
    hidden = torch.cat([queries, padded, queries - padded, queries * padded], dim=-1)
    for layer, (weight, bias) in enumerate(zip(unit.weights[:-1], unit.biases[:-1], strict=True)):
        hidden = linear(hidden, weight, bias)
        if unit.activation == "sigmoid":
            hidden = hidden.sigmoid()
        else:
            hidden = _masked_dice(hidden, mask, unit.alphas[layer])
    scores = linear(hidden, unit.weights[-1], unit.biases[-1])[..., 0] / dim**0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)
    return (weights[..., None] * padded).sum(1)


def _masked_dice(hidden: Tensor, mask: Tensor, alpha: Tensor) -> Tensor:
    # statistics of the valid positions only, else the two would not compute the same
    variance, mean = torch.var_mean(hidden[mask], dim=0, correction=0)
    gate = torch.sigmoid((hidden - mean) * torch.rsqrt(variance + DICE_EPSILON))
    return gate * hidden + (1 - gate) * alpha * hidden


def _jagged(query: Tensor, behaviors: Tensor, pairs: Pairs, unit: ActivationUnit) -> Tensor:
    queries, rows = query[pairs.candidate], behaviors[pairs.behavior]
    hidden = torch.cat([queries, rows, queries - rows, queries * rows], dim=-1)
    for weight, bias in zip(unit.weights[:-1], unit.biases[:-1], strict=True):
        hidden = linear(hidden, weight, bias).sigmoid()
    # in float32, as autocast would: sums of hundreds of shares do not survive bfloat16
    scores = linear(hidden, unit.weights[-1], unit.biases[-1])[:, 0].float()
    scores = scores / query.shape[1] ** 0.5
    maximum, total = softmax_terms(scores, pairs)
    weights = torch.exp(scores - maximum[pairs.candidate]) / total[pairs.candidate]
    pooled = torch.zeros_like(query, dtype=torch.float32)
    return pooled.index_add(0, pairs.candidate, weights[:, None] * rows).to(query.dtype)
