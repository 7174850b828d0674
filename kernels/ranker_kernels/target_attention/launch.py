"""Prepares tensors for the Triton kernels of the attention and launches them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ranker_kernels.target_attention import (
    triton_backward,
    triton_groups,
    triton_kernels,
    triton_selections,
)
from ranker_kernels.target_attention.gradients import Gradients
from ranker_kernels.triton_kernels import are_supported, choose_dot_type, tile_side

WARPS, BACKWARD_WARPS = 4, 8
# a selection has few rows: more warps would compute the same
INDEX_WARPS, INDEX_BACKWARD_WARPS = 2, 4
STAGES = 2
MAX_SIDE = 128
# selections that a program lists, and rows whose selections it adds up
LISTED, MERGED = 256, 64
# tiles whose groups a program finds
LOCATED = 128


class Tiles(NamedTuple):
    """Sides of a product, and how many behaviours a program takes.

    Attributes:
        rows: candidates of a group times heads.
        keys: behaviours at a time.
        piece: behaviours of a program; longer windows are cut.
        pieces: that windows are cut into at most, besides one for each group; they grow instead.
        plan: candidates that are grouped at a time.
    """

    rows: int
    keys: int
    piece: int = 1024
    pieces: int = 1024
    plan: int = 1024


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
    make = torch.empty if call.writes_all else torch.zeros
    shape = (*query.shape[:2], values.shape[1])
    output = make(shape, dtype=torch.float32, device=query.device)
    normalizer = make(shape[:2], dtype=torch.float32, device=query.device)
    parts, part_normalizers = call.make_parts(output), call.make_parts(normalizer)
    if call.max_items:
        triton_kernels.forward[(call.max_items,)](
            *(*call.operands, *call.schedule, output, normalizer, parts, part_normalizers),
            *(len(query), call.length),
            num_warps=WARPS if index is None else INDEX_WARPS,
            **call.constants,
        )
        call.combine(parts, output, part_normalizers, normalizer)
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
    upstream = (gradient.contiguous(), normalizer, torch.empty_like(normalizer))
    make = torch.empty if call.writes_all else torch.zeros
    of_query = make(query.shape, dtype=query.dtype, device=query.device)
    parts = call.make_parts(of_query)
    gradients = call.make_gradients(call.num_behaviors)
    selections = _Selections(call, index)
    if call.max_items:
        triton_backward.backward_query[(call.max_items,)](
            *(*call.operands, *call.schedule, upstream[0], output.contiguous(), *upstream[1:]),
            *(of_query, parts, *gradients, *selections.tensors),
            *(len(query), call.length, selections.size),
            num_warps=BACKWARD_WARPS if index is None else INDEX_BACKWARD_WARPS,
            **call.constants,
        )
        call.combine(parts, of_query)
    if index is None:
        call.differentiate_rows(upstream, gradients)
    else:
        selections.add_up(gradients)
    of_keys, of_values, of_bias = gradients
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
        self.tiles, self.count, self.num_behaviors = tiles, len(query), len(values)
        self.length = 0 if index is None else index.shape[1]
        padded_heads = 1 << (heads - 1).bit_length()
        rows = max(16, padded_heads if index is not None else tiles.rows)
        given = windows if index is None else index
        assert given is not None
        where = given.contiguous()
        tensors = (
            query,
            values if keys is None else keys,
            values,
            values if bias is None else bias,
        )
        self.operands = (*(tensor.contiguous() for tensor in tensors), where)
        # members, groups, items, counts
        self.schedule = (where, where, where, where)
        # a bound: what there is to do with windows is known on the device alone
        self.max_items, self.max_parts = self.count + tiles.pieces, 2 * tiles.pieces
        if index is not None:
            pieces = -(-self.length // tiles.piece)
            self.max_items = self.count * pieces
            self.max_parts = self.max_items if pieces > 1 else 0
        if not (len(values) and self.count):
            self.max_items = 0
        elif index is None:
            self.schedule = self.group(rows // padded_heads)
        # selections of one piece are written even if empty; candidates without a group are not
        self.writes_all = index is not None and self.max_items > 0 and not self.max_parts
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
            "INDEXED": index is not None,
        }

    def group(self, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Groups up to `size` candidates; see `triton_groups.py`."""
        where, tiles = self.operands[4], self.tiles
        order = where[:, 0].argsort(stable=True)
        members, groups = torch.empty_like(order), order.new_empty(7, self.count + 1)
        items, counts = order.new_empty(self.max_items), order.new_empty(3)
        triton_groups.group_windows[(1,)](
            *(where, order, members, groups, items, counts, self.count, tiles.pieces),
            SIZE=size,
            PIECE=tiles.piece,
            BLOCK=tiles.plan,
            num_warps=BACKWARD_WARPS,
        )
        return members, groups, items, counts

    def make_parts(self, result: Tensor) -> Tensor:
        """Returns room for pieces of a result `[C, H, ...]`."""
        shape = (self.max_parts, self.sizes["ROWS"], *result.shape[2:])
        return result.new_empty(shape, dtype=torch.float32)

    def combine(
        self,
        parts: Tensor,
        output: Tensor,
        part_normalizers: Tensor | None = None,
        normalizer: Tensor | None = None,
    ) -> None:
        """Adds up the pieces of each group; with normalizers, as parts of one softmax."""
        if not self.max_parts:
            return
        members, groups, _, counts = self.schedule
        size = output.shape[2]
        triton_kernels.combine[(self.count,)](
            *(parts, parts if part_normalizers is None else part_normalizers),
            *(self.operands[4], members, groups, counts),
            *(output, output if normalizer is None else normalizer, self.count, self.length),
            SIZE=size,
            SIDE=tile_side(size),
            WEIGHTED=normalizer is not None,
            num_warps=WARPS,
            **{name: self.constants[name] for name in ("HEADS", "HP", "ROWS", "PIECE", "INDEXED")},
        )

    def make_gradients(
        self, num_rows: int, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns room for gradients of keys, values and biases; no row of what is not there.

        Their dtype is by default that of what they belong to.
        """
        _, keys, values, bias, _ = self.operands
        key_rows = 0 if self.sizes["SHARED"] else num_rows
        bias_rows = num_rows if self.sizes["HAS_BIAS"] else 0
        return (
            keys.new_empty(key_rows, self.sizes["DIM"], dtype=dtype),
            values.new_empty(num_rows, self.sizes["WIDTH"], dtype=dtype),
            bias.new_empty(bias_rows, self.sizes["HEADS"], dtype=dtype),
        )

    def differentiate_rows(
        self, upstream: tuple[Tensor, ...], gradients: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        """Writes the gradients of keys, values and biases when candidates look at windows."""
        if not self.max_items:
            for gradient in gradients:
                gradient.zero_()
            return
        tiles = -(-self.num_behaviors // self.tiles.keys)
        members, groups, _, counts = self.schedule
        # each begins on 16 bytes: there are builds for pointers that do, and others
        first, last = (members.new_empty(tiles) for _ in range(2))
        triton_groups.locate_groups[(-(-tiles // LOCATED),)](
            *(groups, counts, first, last, self.count, tiles),
            TILE=self.tiles.keys,
            BLOCK=LOCATED,
            num_warps=WARPS,
        )
        triton_backward.backward_rows[(tiles,)](
            *(*self.operands, members, groups, first, last),
            *(*upstream, *gradients, self.num_behaviors),
            num_warps=BACKWARD_WARPS,
            **self.sizes,
        )


class _Selections:
    """Rows that are selected several times: lists of the selections, and the part of each.

    Nothing here waits for the device, so there is room for a part of every selection.
    """

    def __init__(self, call: _Call, index: Tensor | None) -> None:
        self.call, self.size = call, 0
        if index is None:
            # no kernel reads what is listed
            self.tensors = (call.operands[0],) * 5
            return
        self.size = index.numel()
        counts = index.new_zeros(call.num_behaviors, dtype=torch.int32)
        lists = index.new_empty(2, self.size)
        if call.max_items:
            triton_selections.count_selections[self.grid](
                call.operands[4], counts, lists, self.size, BLOCK=LISTED, num_warps=WARPS
            )
        parts = call.make_gradients(self.size, torch.float32)
        self.tensors = (counts.cumsum(0), lists, *parts)

    @property
    def grid(self) -> tuple[int]:
        """Programs that walk over all selections."""
        return (-(-self.size // LISTED),)

    def add_up(self, gradients: tuple[Tensor, Tensor, Tensor]) -> None:
        """Writes the gradients of rows that are selected several times or never."""
        ends, lists, *parts = self.tensors
        num_rows = self.call.num_behaviors
        if not num_rows:
            return
        if self.call.max_items:
            triton_selections.order_selections[self.grid](
                self.call.operands[4], ends, lists, self.size, BLOCK=LISTED, num_warps=WARPS
            )
        names = ("HEADS", "HP", "DIM", "D", "WIDTH", "V", "SHARED", "HAS_BIAS")
        triton_selections.merge_selections[(-(-num_rows // MERGED),)](
            *(ends, lists, *parts, *gradients, num_rows),
            ROWS=MERGED,
            num_warps=WARPS,
            **{name: self.call.sizes[name] for name in names},
        )
