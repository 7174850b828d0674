"""Launches the Triton kernels; nothing here waits for the device."""

from collections.abc import Collection, Sequence
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
    Layers,
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
    return fits(query, behaviors, unit, depths=(3,))


def fits(query: Tensor, behaviors: Tensor, layers: Layers, *, depths: Collection[int]) -> bool:
    """Whether the kernels take these dtypes and sides, with one of these numbers of layers."""
    return (
        len(layers.weights) in depths
        and are_supported(query, behaviors)
        and behaviors.shape[1] <= 128
        and all(bias.shape[0] <= 128 for bias in layers.biases)
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
    call = Call(query, behaviors, windows, unit, launch, normalize=normalize)
    output = query.new_empty(query.shape, dtype=behaviors.dtype)
    terms = query.new_empty(2, len(query), dtype=torch.float32)
    triton_kernels.forward[(call.programs,)](
        *(*call.operands, *call.prepared, output, terms, len(query), call.scale),
        SOFTMAX=call.softmax,
        **call.constants,
        **call.sides,
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
    call = Call(query, behaviors, windows, unit, launch, normalize=normalize, ordered=True)
    return call.differentiate(gradient.contiguous(), output.contiguous(), terms)


class Call:
    """Arguments that the kernels of a call share.

    A pointer to what is not there is that of another tensor; no kernel reads it.

    Attributes:
        operands: what kernels take first.
        prepared: c, the unit and the plan, which `triton_prepare.py` describes.
        constants: of the problem.
        sides: of the launch.
        programs: whose plan there is.
    """

    def __init__(
        self,
        query: Tensor,
        behaviors: Tensor,
        windows: Tensor,
        layers: Layers,
        launch: Launch,
        *,
        normalize: Normalize = "none",
        ordered: bool = False,
        moments: int = 0,
        line: tuple[Tensor, Moments] | None = None,
    ) -> None:
        """Launches `prepare`.

        Args:
            query: candidates `[C, D]`.
            behaviors: `[N, D]`.
            windows: int64 `[C, 2]`.
            layers: an activation unit, or what there is for the moments.
            launch: how kernels are spread.
            normalize: of the attention.
            ordered: for a backward, with candidates in the order of their begins.
            moments: the number of the layer whose moments they are; 0 for the attention.
            line: for a backward of moments, the mean, and the gradients of mean and variance.
        """
        (count, dim), tiles = query.shape, launch.tiles
        # for the first layer's moments there is no second
        hidden = [*(bias.shape[0] for bias in layers.biases), 0][:2]
        width, h1, h2 = (tile_side(side) for side in (dim, *hidden))
        self.layers, self.softmax, self.moments = layers, normalize == "softmax", moments
        self.operands = (query.contiguous(), behaviors.contiguous(), windows.contiguous())
        self.scale = dim**-0.5 if self.softmax else 1.0
        self.sum_size = sum_size(width, h1, h2)
        self.programs = launch.programs if ordered else launch.forward_programs
        self.sides = (
            {"TILE": tiles.backward, "num_warps": WARPS}
            if ordered
            else {"TILE": tiles.forward, "num_warps": tiles.forward_warps}
        )
        sides = {"DIM": dim, "D": width, "H1": h1, "H2": h2, "KIND": KINDS[layers.activation]}
        self.unit_sides = {**sides, "HIDDEN1": hidden[0], "HIDDEN2": hidden[1], "MOMENTS": moments}
        self.constants: dict[str, Any] = {
            **sides,
            "DOT": choose_dot_type(behaviors),
            "num_stages": STAGES,
        }
        # see `triton_prepare.py`
        unit_size = 3 * width * h1 + h2 * h1 + 3 * h1 + 5 * h2 + 1
        packed = query.new_empty(unit_size, dtype=torch.float32)
        self.c = packed.new_empty(count, h1)
        plan = windows.new_empty(self.programs + 3)
        self.order = windows[:, 0].argsort(stable=True) if ordered else plan
        self.marks = windows.new_empty(6, count) if ordered else plan
        self.prepared = (self.c, packed, plan)
        alphas, statistics = list(layers.alphas), list(layers.moments)
        if line is not None:
            alphas.append(line[0])
            statistics.append(line[1])
        parts = _list_parts(layers.weights, layers.biases, alphas, statistics, filler=packed)
        prepare[(2 + ordered + -(-count // ROWS),)](
            *(self.operands[0], self.operands[2], self.order),
            *(*(part.contiguous() for part in parts), packed, self.c, plan, self.marks, count),
            DOT=self.constants["DOT"],
            TILE=self.sides["TILE"],
            PROGRAMS=self.programs,
            BINS=tile_side(max(32, self.programs)),
            BLOCK=tiles.plan,
            ROWS=ROWS,
            ORDERED=ordered,
            num_warps=WARPS,
            **self.unit_sides,
        )

    def differentiate(self, gradient: Tensor, output: Tensor, terms: Tensor) -> Gradients:
        """Launches the backward, with what the attention's needs of its output."""
        query, behaviors, _ = self.operands
        inputs = (*self.operands, self.order, *self.prepared)
        upstream, end = (terms, gradient, output), (len(query), self.scale)
        c_gradient, sums = torch.empty_like(self.c), self.c.new_empty(self.programs, self.sum_size)
        of_query, of_behaviors = torch.empty_like(query), torch.empty_like(behaviors)
        common = {"SOFTMAX": self.softmax, "MOMENTS": self.moments} | self.constants | self.sides
        size = {"SIZE": self.sum_size}
        grid = (self.programs,)
        triton_backward.backward_pairs[grid](
            *(*inputs, self.marks, *upstream, of_behaviors, c_gradient, sums),
            *(len(query), len(behaviors), self.scale),
            ROWS=ROWS,
            **common,
            **size,
        )
        triton_backward.backward_keys[grid](
            *(*inputs, self.marks, *upstream, of_behaviors, *end), PROGRAMS=self.programs, **common
        )
        triton_backward.backward_first_layer[grid](
            *(*inputs, *upstream, c_gradient, of_query, sums, *end),
            HOLD=holds_sums(behaviors.dtype),
            **common,
            **size,
        )
        return self._add_sums(sums, of_query, of_behaviors)

    def _add_sums(self, sums: Tensor, of_query: Tensor, of_behaviors: Tensor) -> Gradients:
        first, block = self.unit_sides["D"] * self.unit_sides["H1"], SUM_SIDES["BLOCK"]
        parts = (self.layers.weights, self.layers.biases, self.layers.alphas)
        weights, biases, alphas = ([_empty(tensor) for tensor in part] for part in parts)
        moments = [
            Moments(_empty(mean), _empty(variance)) for mean, variance in self.layers.moments
        ]
        add_sums[(first // block + -(-(self.sum_size - 3 * first) // block),)](
            *(sums, self.prepared[1], *_list_parts(weights, biases, alphas, moments, filler=sums)),
            SIZE=self.sum_size,
            PROGRAMS=self.programs,
            num_warps=SUM_WARPS,
            **SUM_SIDES,
            **self.unit_sides,
        )
        return Gradients(of_query, of_behaviors, weights, biases, alphas, moments)


def _list_parts(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    alphas: Sequence[Tensor],
    moments: Sequence[Moments],
    *,
    filler: Tensor,
) -> list[Tensor]:
    """Lists the parts of a unit as kernels take them, with `filler` for what is not there."""
    groups = ((weights, 3), (biases, 3), (alphas, 2), ([p for pair in moments for p in pair], 4))
    return [part for group, size in groups for part in (*group, *[filler] * (size - len(group)))]


def _empty(tensor: Tensor) -> Tensor:
    """Returns room for a gradient, contiguous whatever the strides of what it belongs to."""
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)
