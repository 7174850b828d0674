"""Prepares tensors for the Triton kernels of the attention and launches them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ranker_kernels.schedule import find_overlapping
from ranker_kernels.segment_sum.launch import sum_by_row
from ranker_kernels.target_attention import triton_kernels
from ranker_kernels.target_attention.gradients import Gradients
from ranker_kernels.target_attention.groups import Groups, chain_windows, single_candidates
from ranker_kernels.triton_kernels import are_supported, choose_dot_type, tile_side

WARPS, BACKWARD_WARPS = 4, 8
STAGES = 2
MAX_SIDE = 128


class Tiles(NamedTuple):
    """Sides of a product, and how many behaviours a program takes.

    Attributes:
        rows: candidates of a group times heads.
        keys: behaviours at a time.
        piece: behaviours of a program; longer windows are cut.
    """

    rows: int
    keys: int
    piece: int = 1024


def choose_tiles(query: Tensor, keys: Tensor | None, values: Tensor, bias: Tensor | None) -> Tiles:
    """Returns the largest tiles that hardly spill registers (sm_90, widths 64 and 128)."""
    factors = (query, values if keys is None else keys, values)
    exact = any(factor.dtype == torch.float32 for factor in factors)
    return Tiles(16, 32) if exact else Tiles(64, 64)


def supports(query: Tensor, keys: Tensor | None, values: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernels take these shapes and dtypes."""
    return (
        are_supported(query, keys, values, bias)
        and max(query.shape[2], values.shape[1]) <= MAX_SIDE
        and query.shape[1] <= 16
    )


def forward(
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    windows: Tensor | None,
    index: Tensor | None,
    *,
    tiles: Tiles,
) -> tuple[Tensor, Tensor]:
    """Returns the output `[C, H, V]` and log sum exp of the scores `[C, H]`, 0 for no scores."""
    call = _Call(query, keys, values, bias, windows, index, tiles)
    # every selection is written at once; what sees nothing else is not
    written = index is not None and call.num_items > 0 and not call.is_split
    make = torch.empty if written else torch.zeros
    shape = (*query.shape[:2], values.shape[1])
    output = make(shape, dtype=torch.float32, device=query.device)
    normalizer = make(shape[:2], dtype=torch.float32, device=query.device)
    pooled, found = call.make_room(output), call.make_room(normalizer)
    if call.num_items:
        triton_kernels.forward[(call.num_items,)](
            *(*call.operands, *call.schedule, pooled, found, call.length),
            num_warps=WARPS,
            **call.constants,
        )
    if call.is_split:
        call.combine(pooled, output, found, normalizer)
    return output, normalizer


def backward(
    gradient: Tensor,
    output: Tensor,
    normalizer: Tensor,
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    windows: Tensor | None,
    index: Tensor | None,
    *,
    tiles: Tiles,
) -> Gradients:
    """Returns the gradients of the inputs, in float32 or the inputs' own precision."""
    call = _Call(query, keys, values, bias, windows, index, tiles)
    upstream = (gradient.contiguous(), normalizer, (gradient * output).sum(dim=2))
    of_query = gradient.new_zeros(query.shape)
    parts = call.make_room(of_query)
    # the gradient of every selected row, or none
    targets = _SelectionGradient(call, index)
    if call.num_items:
        triton_kernels.backward_query[(call.num_items,)](
            *(*call.operands, *call.schedule, *upstream, parts, *targets.rows, call.length),
            DISTINCT=targets.distinct,
            num_warps=BACKWARD_WARPS,
            **call.constants,
        )
    if call.is_split:
        call.combine(parts, of_query)
    of_keys, of_values, of_bias = (
        call.differentiate_rows(upstream) if index is None else targets.finish()
    )
    return Gradients(
        of_query,
        of_values[:, : query.shape[2]] if keys is None else of_keys,
        of_values,
        None if bias is None else of_bias,
    )


class _Call:
    """Arguments that the kernels of a call share.

    A pointer to what is not there is that of another tensor; no kernel reads it.
    """

    def __init__(
        self,
        query: Tensor,
        keys: Tensor | None,
        values: Tensor,
        bias: Tensor | None,
        windows: Tensor | None,
        index: Tensor | None,
        tiles: Tiles,
    ) -> None:
        (_, heads, dim), width = query.shape, values.shape[1]
        self.tiles, self.num_behaviors = tiles, len(values)
        self.length = 0 if index is None else index.shape[1]
        padded_heads = 1 << (heads - 1).bit_length()
        rows = max(16, padded_heads if index is not None else tiles.rows)
        self.groups: Groups | None = None
        if index is None:
            assert windows is not None
            where = windows.contiguous()
            self.groups = chain_windows(windows, size=rows // padded_heads, piece=tiles.piece)
            self.num_groups, self.num_items = len(self.groups.lows), len(self.groups.items.owners)
        else:
            where = index.contiguous()
            self.num_groups = len(index)
            self.num_items = self.num_groups * -(-self.length // tiles.piece)
        self.num_items = self.num_items if len(values) else 0
        self.is_split = self.num_items > self.num_groups
        if index is not None and self.is_split:
            # what adds the pieces up reads a schedule, what computes them needs none
            self.groups = single_candidates(index, piece=tiles.piece)
        tensors = (
            query,
            values if keys is None else keys,
            values,
            values if bias is None else bias,
        )
        self.operands = (*(tensor.contiguous() for tensor in tensors), where)
        # order, begins, ends, lows, highs; owners, places
        self.schedule = (where,) * 7
        if self.groups is not None:
            self.schedule = (*self.groups[:5], *self.groups.items[:2])
        self.sizes = {
            "HEADS": heads,
            "HP": padded_heads,
            "DIM": dim,
            "D": tile_side(width if keys is None else dim),
            "WIDTH": width,
            "V": tile_side(width),
            "ROWS": rows,
            "TILE": tiles.keys,
            "SHARED": keys is None,
            "HAS_BIAS": bias is not None,
            "DOT": choose_dot_type(query, keys, values),
            "num_stages": STAGES,
        }
        self.constants: dict[str, Any] = {
            **self.sizes,
            "PIECE": tiles.piece,
            "SPLIT": self.is_split,
            "INDEXED": index is not None,
        }

    def make_room(self, result: Tensor) -> Tensor:
        """Returns where a result `[C, H, ...]` goes: to itself, or piece by piece."""
        if not self.is_split:
            return result
        return result.new_empty(self.num_items, self.sizes["ROWS"], *result.shape[2:])

    def combine(
        self,
        parts: Tensor,
        output: Tensor,
        part_normalizers: Tensor | None = None,
        normalizer: Tensor | None = None,
    ) -> None:
        """Adds up the pieces of each group; with normalizers, as parts of one softmax."""
        assert self.groups is not None
        size = output.shape[2]
        triton_kernels.combine[(self.num_groups,)](
            *(parts, parts if part_normalizers is None else part_normalizers),
            *(*self.groups[:3], self.groups.items.begins),
            *(output, output if normalizer is None else normalizer),
            HEADS=self.sizes["HEADS"],
            HP=self.sizes["HP"],
            SIZE=size,
            SIDE=tile_side(size),
            ROWS=self.sizes["ROWS"],
            WEIGHTED=normalizer is not None,
            num_warps=WARPS,
        )

    def make_gradients(self, num_rows: int, *, zero: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Returns room for gradients of keys, values and biases; no row of what is not there."""
        make = torch.zeros if zero else torch.empty
        key_rows = 0 if self.sizes["SHARED"] else num_rows
        bias_rows = num_rows if self.sizes["HAS_BIAS"] else 0
        device, sizes = self.operands[0].device, self.sizes
        return (
            make(key_rows, sizes["DIM"], device=device),
            make(num_rows, sizes["WIDTH"], device=device),
            make(bias_rows, sizes["HEADS"], device=device),
        )

    def differentiate_rows(self, upstream: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients of keys, values and biases when candidates look at windows."""
        assert self.groups is not None
        gradients = self.make_gradients(self.num_behaviors, zero=False)
        first, last = find_overlapping(
            self.groups.lows, self.groups.highs, self.num_behaviors, self.tiles.keys
        )
        if len(first):
            triton_kernels.backward_rows[(len(first),)](
                *(*self.operands, *self.groups[:3], first, last),
                *(*upstream, *gradients, self.num_behaviors),
                num_warps=BACKWARD_WARPS,
                **self.sizes,
            )
        return gradients


class _SelectionGradient:
    """Where `backward_query` writes the gradients of selected rows, and their sums.

    Selections that share no row write to the rows themselves. Otherwise every selected row has one
    of its own, and those of a behaviour are added up in a fixed order.
    """

    def __init__(self, call: _Call, index: Tensor | None) -> None:
        self.index, self.num_behaviors = index, call.num_behaviors
        self.distinct = index is None or _are_distinct(index, call.num_behaviors)
        if index is None:
            self.rows = call.make_gradients(0, zero=False)
        elif self.distinct:
            self.rows = call.make_gradients(call.num_behaviors, zero=True)
        else:
            self.rows = call.make_gradients(index.numel(), zero=False)

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients of keys, values and biases; no row of what is not there."""
        if self.distinct:
            return self.rows
        assert self.index is not None
        there = [rows for rows in self.rows if len(rows)]
        summed = iter(sum_by_row(there, self.index.flatten(), self.num_behaviors))
        keys, values, bias = (next(summed) if len(rows) else rows for rows in self.rows)
        return keys, values, bias


def _are_distinct(index: Tensor, num_behaviors: int) -> bool:
    """Whether no behaviour is selected twice; waits for the device."""
    counts = index.new_zeros(num_behaviors + 1, dtype=torch.int32)
    # in whole numbers the order of a sum does not matter; place 0 is for none
    place = (index + 1).flatten()
    counts.scatter_add_(0, place, torch.ones_like(place, dtype=torch.int32))
    return bool((counts[1:] <= 1).all())
