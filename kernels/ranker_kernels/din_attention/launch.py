"""Prepares tensors for the Triton kernels and launches them."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ranker_kernels.din_attention import triton_kernels
from ranker_kernels.din_attention.first_layer import Collapsed, collapse, uncollapse_gradient
from ranker_kernels.din_attention.unit import (
    DICE_EPSILON,
    Activation,
    ActivationUnit,
    Gradients,
    Normalize,
)
from ranker_kernels.din_attention.windows import expand_windows
from ranker_kernels.segment_sum.launch import sum_by_row
from ranker_kernels.triton_kernels import are_supported, choose_dot_type, tile_side

WARPS, STAGES = 8, 1
# gradients of pairs' keys that are held at once, in numbers: 512 MB
MAX_PAIR_NUMBERS = 1 << 27
KINDS: dict[Activation, int] = {"sigmoid": 0, "prelu": 1, "dice": 2}


class Tiles(NamedTuple):
    """Pairs that a program works on at a time."""

    forward: int
    backward: int
    forward_warps: int = WARPS


class Launch(NamedTuple):
    """How a kernel is spread over the device."""

    programs: int
    tiles: Tiles


def choose_tiles(dtype: torch.dtype, activation: Activation) -> Tiles:
    """Returns the largest tiles that hardly spill registers (sm_90, D = 64 or 32, hidden 80-40)."""
    if dtype == torch.float32:
        return Tiles(16, 16)
    # Dice's three numbers for each unit take the registers of half a tile
    return Tiles(32, 32, forward_warps=4) if activation == "dice" else Tiles(64, 32)


def holds_sums(dtype: torch.dtype) -> bool:
    """Whether there are registers for the sums of `backward_first_layer` (sm_90)."""
    return dtype != torch.float32


def choose_launch(behaviors: Tensor, activation: Activation) -> Launch:
    """One program takes the registers of a multiprocessor, so there are as many of them."""
    properties = torch.cuda.get_device_properties(behaviors.device)
    return Launch(properties.multi_processor_count, choose_tiles(behaviors.dtype, activation))


def supports(query: Tensor, behaviors: Tensor, unit: ActivationUnit) -> bool:
    """Whether the kernels take these shapes and dtypes: two hidden layers, tiles that fit."""
    return (
        len(unit.weights) == 3
        and are_supported(query, behaviors)
        and behaviors.shape[1] <= 128
        and all(bias.shape[0] <= 128 for bias in unit.biases)
    )


def forward(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    unit: ActivationUnit,
    normalize: Normalize,
    launch: Launch,
) -> tuple[Tensor, Tensor]:
    """Computes what `blocked.forward` does, with the unit in float32; the output is float32."""
    inputs = _Inputs(query, behaviors, windows, unit, normalize)
    output = query.new_empty(query.shape, dtype=torch.float32)
    terms = output.new_zeros(2, len(query))
    triton_kernels.forward[(launch.programs,)](
        *inputs.tensors,
        output,
        terms,
        len(query),
        inputs.scale,
        TILE=launch.tiles.forward,
        num_warps=launch.tiles.forward_warps,
        **inputs.constants,
    )
    return output, terms


def backward(
    gradient: Tensor,
    output: Tensor,
    terms: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    unit: ActivationUnit,
    normalize: Normalize,
    launch: Launch,
) -> Gradients:
    """Computes what `blocked.backward` does; `gradient` and `output` are float32."""
    inputs = _Inputs(query, behaviors, windows, unit, normalize)
    upstream = (terms, gradient.contiguous(), (gradient * output).sum(1))
    tail = (len(query), inputs.scale)
    second_hidden, first_hidden = inputs.weight2.shape
    weight2, units1 = (
        gradient.new_zeros(second_hidden, first_hidden),
        gradient.new_zeros(first_hidden),
    )
    units2, score_bias = gradient.new_zeros(3, second_hidden), gradient.new_zeros(1)
    of_candidate = torch.empty_like(inputs.of_candidate)
    keys = _KeyGradient(behaviors, windows)
    for order, rows, buffer in keys.launches(inputs.order):
        totals = (weight2, units1, units2, score_bias)
        parts = [total.new_empty(launch.programs, *total.shape) for total in totals]
        triton_kernels.backward_pairs[(launch.programs,)](
            *(*inputs.before, order, *inputs.behind, *upstream, rows, buffer, of_candidate),
            *(*parts, len(order), *tail),
            TILE=launch.tiles.backward,
            num_warps=WARPS,
            **inputs.constants,
        )
        for total, part in zip(totals, parts, strict=True):
            total += part.sum(0)
    query_gradient = torch.empty_like(gradient)
    first = gradient.new_zeros(launch.programs, *inputs.first_weight.shape)
    triton_kernels.backward_first_layer[(launch.programs,)](
        *(*inputs.tensors, *upstream, query_gradient, first),
        *tail,
        TILE=launch.tiles.backward,
        HOLD=holds_sums(behaviors.dtype),
        num_warps=WARPS,
        **inputs.constants,
    )

    h1, h2 = (bias.shape[0] for bias in unit.biases[:2])
    of_candidate = of_candidate[:, :h1]
    behavior_block, product_block = first.sum(0)[:, : query.shape[1], :h1].mT
    collapsed = Collapsed(of_candidate.T @ query.float(), behavior_block, product_block)
    bias2, score_weight, alpha2 = units2[:, :h2]
    return Gradients(
        query_gradient + of_candidate @ collapse(unit.weights[0]).candidate,
        keys.total,
        [uncollapse_gradient(collapsed), weight2[:h2, :h1], score_weight[None]],
        [of_candidate.sum(0), bias2, score_bias],
        [units1[:h1], alpha2] if unit.alphas else [],
    )


class _Inputs:
    """Arguments that all kernels share, padded to powers of two."""

    def __init__(
        self,
        query: Tensor,
        behaviors: Tensor,
        windows: Tensor,
        unit: ActivationUnit,
        normalize: Normalize,
    ) -> None:
        dim = query.shape[1]
        width, h1, h2 = (tile_side(n) for n in (dim, *(bias.shape[0] for bias in unit.biases[:2])))
        first = collapse(unit.weights[0])
        of_candidate = torch.addmm(unit.biases[0], query.float(), first.candidate.T)
        self.of_candidate = _pad(of_candidate, len(query), h1)
        self.first_weight = torch.stack(
            [_pad(block.T, width, h1) for block in (first.behavior, first.product)]
        )
        self.weight2 = _pad(unit.weights[1], h2, h1)
        units1 = _pad(torch.stack(_activation_rows(unit, 0)), 3, h1)
        units2 = torch.stack([unit.biases[1], unit.weights[2][0], *_activation_rows(unit, 1)])
        self.order = _longest_first(windows)
        self.before = (query.contiguous(), behaviors.contiguous(), windows.contiguous())
        self.behind = (
            *(self.of_candidate, self.first_weight, units1, self.weight2, _pad(units2, 5, h2)),
            unit.biases[2],
        )
        self.tensors = (*self.before, self.order, *self.behind)
        self.scale = dim**-0.5 if normalize == "softmax" else 1.0
        self.constants = {
            "DIM": dim,
            "D": width,
            "H1": h1,
            "H2": h2,
            "KIND": KINDS[unit.activation],
            "SOFTMAX": normalize == "softmax",
            "DOT": choose_dot_type(behaviors),
            "num_stages": STAGES,
        }


class _KeyGradient:
    """Where `backward_pairs` writes the gradient of every pair's key, and their sum.

    Windows that do not overlap write to the behaviours' own rows. Otherwise every pair has its
    own row, and the rows of a behaviour are added up in a fixed order; candidates take turns, so
    that there are never many pairs at once.
    """

    def __init__(self, behaviors: Tensor, windows: Tensor) -> None:
        self.windows = windows
        begins, self.by_begin = windows[:, 0].sort(stable=True)
        ends = windows[self.by_begin, 1]
        meet = (begins[1:] < ends.cummax(0).values[:-1]) & (ends[1:] > begins[1:])
        self.overlap = bool(meet.any())
        dtype = torch.float32 if self.overlap else behaviors.dtype
        self.total = torch.zeros(behaviors.shape, dtype=dtype, device=behaviors.device)

    def launches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields candidates, where each writes, and what to; it is added up with the next call."""
        if not self.overlap:
            yield order, self.windows[:, 0].contiguous(), self.total
            return
        num_rows, dim = self.total.shape
        begins, ends = self.windows[self.by_begin].unbind(1)
        turn = ((ends - begins).cumsum(0) - 1).clamp_min(0) // max(1, MAX_PAIR_NUMBERS // dim)
        for number in turn.unique_consecutive().tolist():  # type: ignore[no-untyped-call]
            members = self.by_begin[turn == number]
            members = members[_longest_first(self.windows[members])]
            pairs = expand_windows(self.windows[members])
            rows = torch.zeros_like(order).index_copy_(0, members, pairs.offsets)
            buffer = self.total.new_empty(len(pairs.behavior), dim)
            yield members, rows, buffer
            self.total += sum_by_row([buffer], pairs.behavior, num_rows)[0]


def _longest_first(windows: Tensor) -> Tensor:
    """Returns the order in which no program is left with a long window at the end."""
    return torch.argsort(windows[:, 1] - windows[:, 0], descending=True, stable=True)


def _activation_rows(unit: ActivationUnit, layer: int) -> list[Tensor]:
    """Returns alpha, rate and shift; Dice's gate is sigmoid(z * rate + shift)."""
    zero = torch.zeros_like(unit.biases[layer])
    alpha = unit.alphas[layer] if unit.alphas else zero
    if not unit.moments:
        return [alpha, zero, zero]
    mean, variance = unit.moments[layer]
    rate = torch.rsqrt(variance + DICE_EPSILON)
    return [alpha, rate, -mean * rate]


def _pad(matrix: Tensor, rows: int, columns: int) -> Tensor:
    return pad(matrix, (0, columns - matrix.shape[1], 0, rows - matrix.shape[0])).contiguous()
