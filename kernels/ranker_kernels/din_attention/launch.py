"""Prepares tensors for the Triton kernels and launches them."""

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

WARPS = 8
_KINDS: dict[Activation, int] = {"sigmoid": 0, "prelu": 1, "dice": 2}


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


def choose_launch(behaviors: Tensor, activation: Activation) -> Launch:
    """One program takes the registers of a multiprocessor, so there are as many of them."""
    properties = torch.cuda.get_device_properties(behaviors.device)
    return Launch(properties.multi_processor_count, choose_tiles(behaviors.dtype, activation))


def supports(query: Tensor, behaviors: Tensor, unit: ActivationUnit) -> bool:
    """Whether the kernels take these shapes and dtypes: two hidden layers, tiles that fit."""
    return (
        len(unit.weights) == 3
        and {query.dtype, behaviors.dtype} <= {torch.float32, torch.bfloat16, torch.float16}
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
    common = (*inputs.tensors, terms, gradient.contiguous(), (gradient * output).sum(1))
    tail = (len(query), inputs.scale)
    first_hidden, second_hidden = inputs.weight2.shape[1], inputs.weight2.shape[0]

    def per_program(*shape: int) -> Tensor:
        return gradient.new_empty(launch.programs, *shape)

    weight2, units1 = per_program(second_hidden, first_hidden), per_program(first_hidden)
    units2, score_bias = per_program(3, second_hidden), per_program(1)
    of_candidate = torch.empty_like(inputs.of_candidate)
    keys = _KeyGradient(behaviors, windows)
    triton_kernels.backward_pairs[(launch.programs,)](
        *(*common, keys.rows, keys.buffer, of_candidate, weight2, units1, units2, score_bias),
        *tail,
        TILE=launch.tiles.backward,
        num_warps=WARPS,
        **inputs.constants,
    )
    query_gradient = torch.empty_like(gradient)
    first = per_program(*inputs.first_weight.shape)
    triton_kernels.backward_first_layer[(launch.programs,)](
        *(*common, query_gradient, first),
        *tail,
        TILE=launch.tiles.backward,
        num_warps=WARPS,
        **inputs.constants,
    )

    h1, h2 = (bias.shape[0] for bias in unit.biases[:2])
    of_candidate = of_candidate[:, :h1]
    behavior_block, product_block = first.sum(0)[:, : query.shape[1], :h1].mT
    collapsed = Collapsed(of_candidate.T @ query.float(), behavior_block, product_block)
    bias2, score_weight, alpha2 = units2.sum(0)[:, :h2]
    return Gradients(
        query_gradient + of_candidate @ collapse(unit.weights[0]).candidate,
        keys.finish(),
        [uncollapse_gradient(collapsed), weight2.sum(0)[:h2, :h1], score_weight[None]],
        [of_candidate.sum(0), bias2, score_bias.sum(0)],
        [units1.sum(0)[:h1], alpha2] if unit.alphas else [],
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
        # the interpreter, which alone runs these kernels on CPU, gets bfloat16 products wrong
        dot = behaviors.dtype if behaviors.is_cuda else torch.float32
        width, h1, h2 = (_side(n) for n in (dim, *(bias.shape[0] for bias in unit.biases[:2])))
        first = collapse(unit.weights[0])
        of_candidate = torch.addmm(unit.biases[0], query.float(), first.candidate.T)
        self.of_candidate = _pad(of_candidate, len(query), h1)
        self.first_weight = torch.stack(
            [_pad(block.T, width, h1) for block in (first.behavior, first.product)]
        )
        self.weight2 = _pad(unit.weights[1], h2, h1).to(dot)
        units1 = _pad(torch.stack(_activation_rows(unit, 0)), 3, h1)
        units2 = torch.stack([unit.biases[1], unit.weights[2][0], *_activation_rows(unit, 1)])
        # the longest windows first, so that no program is left with one at the end
        order = torch.argsort(windows[:, 1] - windows[:, 0], descending=True, stable=True)
        self.tensors = (
            *(query.contiguous(), behaviors.contiguous(), windows.contiguous(), order),
            *(self.of_candidate, self.first_weight, units1, self.weight2, _pad(units2, 5, h2)),
            unit.biases[2],
        )
        self.scale = dim**-0.5 if normalize == "softmax" else 1.0
        self.constants = {
            "DIM": dim,
            "D": width,
            "H1": h1,
            "H2": h2,
            "KIND": _KINDS[unit.activation],
            "SOFTMAX": normalize == "softmax",
            "DOT": triton_kernels.DOT_TYPES[dot],
            "num_stages": 1,
        }


class _KeyGradient:
    """Where `backward_pairs` writes the gradient of every pair's key, and their sum.

    Windows that do not overlap write to the behaviours' own rows. Otherwise every pair has its
    own row, and the rows of a behaviour are added up in a fixed order.
    """

    def __init__(self, behaviors: Tensor, windows: Tensor) -> None:
        self.behaviors = behaviors
        begins, by_begin = windows[:, 0].sort(stable=True)
        reached = windows[by_begin, 1].cummax(0).values
        filled = windows[by_begin, 1] > begins
        self.overlap = bool(((begins[1:] < reached[:-1]) & filled[1:]).any())
        if self.overlap:
            self.pairs = expand_windows(windows)
            self.rows = self.pairs.offsets
            shape = (self.pairs.behavior.shape[0], behaviors.shape[1])
            self.buffer = behaviors.new_empty(shape, dtype=torch.float32)
        else:
            self.rows = windows[:, 0].contiguous()
            self.buffer = torch.zeros_like(behaviors, memory_format=torch.contiguous_format)

    def finish(self) -> Tensor:
        if not self.overlap:
            return self.buffer
        num_behaviors, dim = self.behaviors.shape
        behavior, pairs = self.pairs.behavior.sort(stable=True)
        bounds = torch.arange(num_behaviors + 1, device=behavior.device)
        offsets = torch.searchsorted(behavior, bounds)
        output = self.buffer.new_empty(num_behaviors, dim)
        rows = 32
        triton_kernels.sum_by_behavior[((num_behaviors + rows - 1) // rows,)](
            *(self.buffer, pairs, offsets, output, num_behaviors),
            DIM=dim,
            D=_side(dim),
            ROWS=rows,
        )
        return output


def _activation_rows(unit: ActivationUnit, layer: int) -> list[Tensor]:
    """Returns alpha, rate and shift; Dice's gate is sigmoid(z * rate + shift)."""
    zero = torch.zeros_like(unit.biases[layer])
    alpha = unit.alphas[layer] if unit.alphas else zero
    if not unit.moments:
        return [alpha, zero, zero]
    mean, variance = unit.moments[layer]
    rate = torch.rsqrt(variance + DICE_EPSILON)
    return [alpha, rate, -mean * rate]


def _side(size: int) -> int:
    """Returns the side of a tile: a power of two, and at least what a tensor core takes."""
    return max(16, 1 << (size - 1).bit_length())


def _pad(matrix: Tensor, rows: int, columns: int) -> Tensor:
    return pad(matrix, (0, columns - matrix.shape[1], 0, rows - matrix.shape[0])).contiguous()
