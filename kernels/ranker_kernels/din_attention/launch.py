"""Launches the Triton kernels; nothing here waits for the device."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ranker_kernels.din_attention import triton_backward, triton_kernels
from ranker_kernels.din_attention.triton_prepare import prepare
from ranker_kernels.din_attention.triton_sums import add_sums
from ranker_kernels.din_attention.unit import (
    Activation,
    ActivationUnit,
    Gradients,
    Moments,
    Normalize,
)
from ranker_kernels.triton_kernels import are_supported, choose_dot_type, tile_side

WARPS, STAGES = 8, 1
# candidates whose c a program computes at once, and whose gradients it multiplies with q
ROWS = 32
# programs whose sums are added up at a time, and places of a sum
SUM_SIDES = {"ROWS": 32, "BLOCK": 128}
SUM_WARPS = 4
KINDS: dict[Activation, int] = {"sigmoid": 0, "prelu": 1, "dice": 2}


class Tiles(NamedTuple):
    """Pairs that a program works on at a time, and candidates that are planned at a time."""

    forward: int
    backward: int
    forward_warps: int = WARPS
    plan: int = 2048


class Launch(NamedTuple):
    """How kernels are spread over the device.

    Attributes:
        programs: that it holds at once, if each has `WARPS`.
        tiles: what a program works on.
    """

    programs: int
    tiles: Tiles

    @property
    def forward_programs(self) -> int:
        """As many more as they are smaller."""
        return self.programs * WARPS // self.tiles.forward_warps


def choose_tiles(dtype: torch.dtype, activation: Activation) -> Tiles:
    """Returns the largest tiles that hardly spill registers (sm_90, D = 64 or 32, hidden 80-40)."""
    if dtype == torch.float32:
        return Tiles(16, 16)
    # numbers for each unit take the registers of half a tile; with 64 rows, two groups of four
    # warps would both compute the first layer
    return Tiles(64 if activation == "sigmoid" else 32, 32, forward_warps=4)


def holds_sums(dtype: torch.dtype) -> bool:
    """Whether there are registers for the sums of `backward_first_layer` (sm_90)."""
    return dtype != torch.float32


def sum_size(width: int, h1: int, h2: int) -> int:
    """Returns the numbers that a program sums up; see `triton_sums.py`."""
    # the last is one number, but rows begin on 16 bytes
    return 3 * width * h1 + h2 * h1 + 4 * h1 + 5 * h2 + 4


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
    """Computes what `blocked.forward` does; the output has the dtype of the behaviours."""
    programs = launch.forward_programs
    call = _Call(query, behaviors, windows, None, unit, normalize, launch.tiles, programs)
    output = query.new_empty(query.shape, dtype=behaviors.dtype)
    terms = query.new_empty(2, len(query), dtype=torch.float32)
    triton_kernels.forward[(programs,)](
        *(*call.operands, *call.prepared, output, terms, len(query), call.scale),
        TILE=launch.tiles.forward,
        num_warps=launch.tiles.forward_warps,
        **call.constants,
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
    """Computes what `blocked.backward` does; gradients have the dtypes of what they belong to."""
    order = windows[:, 0].argsort(stable=True)
    programs = launch.programs
    call = _Call(query, behaviors, windows, order, unit, normalize, launch.tiles, programs)
    inputs = (*call.operands, order, *call.prepared)
    upstream = (terms, gradient.contiguous(), output.contiguous())
    c_gradient, sums = torch.empty_like(call.c), terms.new_empty(programs, call.sum_size)
    of_query, of_behaviors = _empty(query), _empty(behaviors)
    common = call.constants | {"TILE": launch.tiles.backward, "num_warps": WARPS}
    grid, count = (programs,), len(query)
    triton_backward.backward_pairs[grid](
        *(*inputs, call.marks, *upstream, of_behaviors, c_gradient, sums),
        *(count, len(behaviors), call.scale),
        SIZE=call.sum_size,
        ROWS=ROWS,
        **common,
    )
    triton_backward.backward_keys[grid](
        *(*inputs, call.marks, *upstream, of_behaviors, count, call.scale),
        PROGRAMS=programs,
        **common,
    )
    triton_backward.backward_first_layer[grid](
        *(*inputs, *upstream, c_gradient, of_query, sums, count, call.scale),
        SIZE=call.sum_size,
        HOLD=holds_sums(behaviors.dtype),
        **common,
    )
    parts = (unit.weights, unit.biases, unit.alphas)
    weights, biases, alphas = ([_empty(tensor) for tensor in part] for part in parts)
    moments = [Moments(_empty(mean), _empty(variance)) for mean, variance in unit.moments]
    of_moments = [part for pair in moments for part in pair] or [sums] * 4
    call.add_sums(sums, [*weights, *biases, *(alphas or [sums] * 2), *of_moments])
    return Gradients(of_query, of_behaviors, weights, biases, alphas, moments)


class _Call:
    """Arguments that the kernels of a call share.

    A pointer to what is not there is that of another tensor; no kernel reads it.
    """

    def __init__(
        self,
        query: Tensor,
        behaviors: Tensor,
        windows: Tensor,
        order: Tensor | None,
        unit: ActivationUnit,
        normalize: Normalize,
        tiles: Tiles,
        programs: int,
    ) -> None:
        (count, dim), self.programs = query.shape, programs
        hidden = [bias.shape[0] for bias in unit.biases[:2]]
        width, h1, h2 = (tile_side(side) for side in (dim, *hidden))
        self.operands = (query.contiguous(), behaviors.contiguous(), windows.contiguous())
        self.scale = dim**-0.5 if normalize == "softmax" else 1.0
        self.sum_size = sum_size(width, h1, h2)
        sides = {"DIM": dim, "D": width, "H1": h1, "H2": h2, "KIND": KINDS[unit.activation]}
        self.unit_sides = {**sides, "HIDDEN1": hidden[0], "HIDDEN2": hidden[1]}
        self.constants: dict[str, Any] = {
            **sides,
            "SOFTMAX": normalize == "softmax",
            "DOT": choose_dot_type(behaviors),
            "num_stages": STAGES,
        }
        # see `triton_prepare.py`
        unit_size = 3 * width * h1 + h2 * h1 + 3 * h1 + 5 * h2 + 1
        packed = query.new_empty(unit_size, dtype=torch.float32)
        self.c = packed.new_empty(count, h1)
        plan = windows.new_empty(programs + 3)
        self.marks = plan if order is None else windows.new_empty(6, count)
        self.prepared = (self.c, packed, plan)
        parts = [*unit.weights, *unit.biases, *(unit.alphas or [packed] * 2)]
        parts += [part for pair in unit.moments for part in pair] or [packed] * 4
        ordered = order is not None
        prepare[(2 + ordered + -(-count // ROWS),)](
            *(self.operands[0], self.operands[2], windows if order is None else order),
            *(*(part.contiguous() for part in parts), packed, self.c, plan, self.marks, count),
            DOT=self.constants["DOT"],
            TILE=tiles.backward if ordered else tiles.forward,
            PROGRAMS=programs,
            BINS=tile_side(max(32, programs)),
            BLOCK=tiles.plan,
            ROWS=ROWS,
            ORDERED=ordered,
            num_warps=WARPS,
            **self.unit_sides,
        )

    def add_sums(self, sums: Tensor, gradients: list[Tensor]) -> None:
        """Writes the gradients of weights, biases, alphas, and means and variances in pairs."""
        first, block = self.unit_sides["D"] * self.unit_sides["H1"], SUM_SIDES["BLOCK"]
        add_sums[(first // block + -(-(self.sum_size - 3 * first) // block),)](
            *(sums, self.prepared[1], *gradients),
            SIZE=self.sum_size,
            PROGRAMS=self.programs,
            num_warps=SUM_WARPS,
            **SUM_SIDES,
            **self.unit_sides,
        )


def _empty(tensor: Tensor) -> Tensor:
    """Returns room for a gradient, contiguous whatever the strides of what it belongs to."""
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)
