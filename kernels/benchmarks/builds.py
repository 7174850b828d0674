"""The builds of every op's Triton kernels that are looked at without a GPU.

Widths are 64, hidden layers 80 and 40 (tiles of 128 and 64), and heads 4.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.hopper import Build
from ranker_kernels.din_attention import Activation
from ranker_kernels.din_attention import launch as din
from ranker_kernels.din_attention import triton_backward as din_backward
from ranker_kernels.din_attention import triton_kernels as din_kernels
from ranker_kernels.din_attention.triton_moments import forward_moments, merge_moments
from ranker_kernels.din_attention.triton_prepare import prepare
from ranker_kernels.din_attention.triton_sums import add_sums
from ranker_kernels.gated_scale import launch as gate
from ranker_kernels.gated_scale import triton_kernels as gate_kernels
from ranker_kernels.hamming_topk import launch as hamming
from ranker_kernels.hamming_topk import triton_kernels as hamming_kernels
from ranker_kernels.search_topk import launch as search
from ranker_kernels.search_topk import triton_kernels as search_kernels
from ranker_kernels.search_topk.triton_groups import group
from ranker_kernels.search_topk.triton_merge import merge
from ranker_kernels.search_topk.triton_slow import search_slowly
from ranker_kernels.segment_sum import launch as segments
from ranker_kernels.segment_sum import triton_kernels as segment_kernels
from ranker_kernels.signature_sums import launch as sdim
from ranker_kernels.signature_sums import triton_kernels as sdim_kernels
from ranker_kernels.target_attention import launch as target
from ranker_kernels.target_attention import triton_backward as target_backward
from ranker_kernels.target_attention import triton_groups as target_groups
from ranker_kernels.target_attention import triton_kernels as target_kernels
from ranker_kernels.target_attention import triton_selections as target_selections
from ranker_kernels.triton_kernels import DOT_TYPES

DIM = 64
_ELEMENTS = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}
# names of arguments, the same in all kernels
_INT64 = (
    *("windows", "where", "order", "plan", "marks", "score_starts", "lengths", "positions", "rows"),
    *("group_begins", "group_ends", "group_lows", "group_highs", "first_groups", "last_groups"),
    *("item_groups", "item_places", "item_begins", "tile_groups", "tile_places", "row_starts"),
    *("begins", "ends", "lows", "highs", "item_windows", "first_windows", "last_windows"),
    *("window_of", "window_begins", "window_ends", "lists"),
    *("members", "groups", "items", "counts"),
)
_NUMBERS = {
    **dict.fromkeys(
        ("num_candidates", "num_tiles", "num_rows", "num_segments", "num_behaviors"), "i32"
    ),
    **dict.fromkeys(("k", "length", "size", "num_selections", "max_pieces"), "i32"),
    **dict.fromkeys(("gradient_stride", "logits_stride", "hidden_stride"), "i32"),
    **dict.fromkeys(("scale", "gamma"), "fp32"),
}
# of the search; positions are places in a window there
_SEARCH = {
    **dict.fromkeys(("codes", "places", "index"), "*i64"),
    **dict.fromkeys(("firsts", "lasts", "lost", "counters", "pad", "notes", "positions"), "*i32"),
    **dict.fromkeys(("kind", "few"), "i32"),
}


def _types(element: str, *operands: str) -> dict[str, str]:
    return dict.fromkeys(_INT64, "*i64") | _NUMBERS | dict.fromkeys(operands, element)


def build_din_attention() -> Iterator[Build]:
    """Yields forward and backward, in bfloat16 and float32; PReLU in bfloat16 only."""
    cases: tuple[tuple[torch.dtype, Activation], ...] = (
        (torch.bfloat16, "sigmoid"),
        (torch.bfloat16, "prelu"),
        (torch.bfloat16, "dice"),
        (torch.float32, "sigmoid"),
        (torch.float32, "dice"),
    )
    for dtype, activation in cases:
        tiles = din.choose_tiles(dtype, activation)
        sides = {"DIM": DIM, "D": DIM, "H1": 128, "H2": 64, "HIDDEN1": 80, "HIDDEN2": 40}
        size = din.sum_size(DIM, 128, 64)
        sides |= {"SIZE": size, "PROGRAMS": 132, "BINS": 256, "BLOCK": tiles.plan, "ROWS": din.ROWS}
        kind = {"KIND": din.KINDS[activation], "SOFTMAX": True, "DOT": DOT_TYPES[dtype]}
        kind |= {"HOLD": din.holds_sums(dtype), "ORDERED": True, "MOMENTS": 0}
        element = _ELEMENTS[dtype]
        gradients = ("upstream", "output", "key_gradient", "query_gradient")
        for kernel, tile, warps in (
            (din_kernels.forward, tiles.forward, tiles.forward_warps),
            (din_backward.backward_pairs, tiles.backward, din.WARPS),
            (din_backward.backward_keys, tiles.backward, din.WARPS),
            (din_backward.backward_first_layer, tiles.backward, din.WARPS),
        ):
            yield Build(
                kernel=kernel,
                note=f"{dtype}, {activation}",
                constants=sides | kind | {"TILE": tile},
                types=_types(element, "query", "behaviors", *gradients),
                warps=warps,
                stages=din.STAGES,
            )
        if activation == "dice":
            for kernel, constants, warps in (
                (prepare, {"TILE": tiles.backward}, din.WARPS),
                (add_sums, din.SUM_SIDES, din.SUM_WARPS),
            ):
                yield Build(
                    kernel=kernel,
                    note=f"{dtype}, {activation}",
                    constants=sides | kind | constants,
                    types=_types(element, "query"),
                    warps=warps,
                )


def build_din_moments() -> Iterator[Build]:
    """Yields forward and backward for the first and the second layer."""
    for dtype, element in _ELEMENTS.items():
        for depth, hidden2, h2 in ((1, 0, 16), (2, 40, 64)):
            tiles = din.choose_tiles(dtype, "dice")
            sides = {"DIM": DIM, "D": DIM, "H1": 128, "H2": h2, "HIDDEN1": 80, "HIDDEN2": hidden2}
            kind = {"KIND": din.KINDS["dice"], "SOFTMAX": False, "DOT": DOT_TYPES[dtype]}
            kind |= {"MOMENTS": depth, "HOLD": din.holds_sums(dtype), "ORDERED": True}
            kind |= {"SIZE": din.sum_size(DIM, 128, h2), "PROGRAMS": 132, "BINS": 256}
            kind |= {"ROWS": din.ROWS, "BLOCK": tiles.plan}
            forward = {"TILE": tiles.forward, "WIDTH": (128, h2)[depth - 1]}
            forward["HIDDEN"] = (80, hidden2)[depth - 1]
            backward = {"TILE": tiles.backward}
            for kernel, constants, warps in (
                (forward_moments, forward, din.WARPS),
                (merge_moments, forward | din.SUM_SIDES, din.SUM_WARPS),
                (din_backward.backward_pairs, backward, din.WARPS),
                (din_backward.backward_keys, backward, din.WARPS),
                (din_backward.backward_first_layer, backward, din.WARPS),
                (prepare, backward, din.WARPS),
                (add_sums, din.SUM_SIDES, din.SUM_WARPS),
            ):
                yield Build(
                    kernel=kernel,
                    note=f"{dtype}, layer {depth}",
                    constants=sides | kind | constants,
                    types=_types(element, "query", "behaviors", "key_gradient", "query_gradient")
                    | {"counts": "*fp32"},
                    warps=warps,
                    stages=din.STAGES,
                )


def build_searches() -> Iterator[Build]:
    """Yields the searches in both precisions, one head and four, and what belongs to them."""
    for dtype, element in _ELEMENTS.items():
        for heads in (1, 4):
            many = heads > 1
            row_bytes = DIM * dtype.itemsize
            tiles = search.choose_tiles(dtype, 100, has_bias=many)
            kinds = search.Launch(*tiles, 264).fit(heads, row_bytes)
            widths = {"HEADS": heads, "DIM": DIM, "D": DIM, "HAS_BIAS": many, "WITH_VALUES": many}
            widths |= {"DOT": DOT_TYPES[dtype], "NATIVE": True, "ALL": False}
            for kernel, kind, name in (
                (search_kernels.search, kinds[0], "many"),
                (search_kernels.search, kinds[1], "few"),
                (search_slowly, kinds[0], "any"),
            ):
                pad = {"SLOTS": kind.slots, "PAIRS": kind.pairs, "CHUNK": kind.chunk}
                sides = kind.sides
                if name == "any":
                    sides = search.slow_sides(kind, heads, row_bytes)
                yield Build(
                    kernel=kernel,
                    note=f"{dtype}, {heads} head(s), {name}",
                    constants=widths | pad | sides | {"STRIDE": kind.stride},
                    types=_types(element, "query", "keys") | _SEARCH,
                    warps=sides["num_warps"],
                    stages=sides["num_stages"],
                )
    few = search.choose_tiles(torch.bfloat16, 100, has_bias=False)[1]
    pad = {"SLOTS": few.slots, "PAIRS": few.pairs, "CHUNK": few.chunk, "STRIDE": few.stride}
    widths = {"HEADS": 1, "DIM": DIM, "D": DIM, "HAS_BIAS": False, "WITH_VALUES": False}
    yield Build(
        kernel=search_kernels.search,
        note="torch.bfloat16, int8 keys, 1 head(s), few",
        constants=widths | pad | few.sides | {"DOT": DOT_TYPES[torch.bfloat16], "NATIVE": True},
        types=_types("*bf16", "query") | {"keys": "*i8"} | _SEARCH,
        warps=few.warps,
        stages=few.stages,
    )
    yield Build(
        kernel=group,
        note="torch.int64",
        constants={"BLOCK": search.BLOCK},
        types=_types("") | _SEARCH,
    )
    for heads in (1, 4):
        yield Build(
            kernel=merge,
            note=f"torch.float32, {heads} head(s)",
            constants={"HEADS": heads, "HP": heads, "KP": 128},
            types=_types("") | _SEARCH,
            warps=1 if heads == 1 else search.MERGE_WARPS,
        )
    yield Build(
        kernel=hamming_kernels.closeness,
        note="torch.int64",
        constants={"WORDS": 1, "ROWS": hamming.TILES.rows, "TILE": hamming.TILES.keys},
        types=_types("*i64", "query", "keys"),
        warps=hamming.WARPS,
    )
    yield Build(
        kernel=hamming_kernels.select,
        note="torch.float32",
        constants={"TILE": hamming.SELECT_TILE},
        types=_types("*fp32"),
        warps=hamming.WARPS,
    )


def build_target_attention() -> Iterator[Build]:
    """Yields forward and backward, windows and selections, and the sum over pieces."""
    gradients = ("query_gradient", "key_gradient", "value_gradient", "bias_gradient")
    for dtype, element in _ELEMENTS.items():
        matrix = torch.empty(0, dtype=dtype)
        tiles = target.choose_tiles(matrix, None, matrix, None)
        common: dict[str, Any] = {
            **{"HEADS": 4, "HP": 4, "DIM": DIM, "D": DIM, "WIDTH": DIM, "V": DIM},
            **{"TILE": tiles.keys, "PIECE": tiles.piece},
            **{"SHARED": True, "HAS_BIAS": True, "DOT": DOT_TYPES[dtype]},
        }
        windows, selection = ({"ROWS": tiles.rows, "INDEXED": False}, {"ROWS": 16, "INDEXED": True})
        for kernel, place, note, warps in (
            (target_kernels.forward, windows, "windows", target.WARPS),
            (target_backward.backward_query, windows, "windows", target.BACKWARD_WARPS),
            (target_backward.backward_rows, windows, "windows", target.BACKWARD_WARPS),
            (target_kernels.forward, selection, "index", target.INDEX_WARPS),
            (
                target_backward.backward_query,
                selection,
                "index",
                target.INDEX_BACKWARD_WARPS,
            ),
        ):
            yield Build(
                kernel=kernel,
                note=f"{dtype}, {note}",
                constants=common | place,
                types=_types(element, "query", "keys", "values", "bias", *gradients),
                warps=warps,
                stages=target.STAGES,
            )
        yield Build(
            kernel=target_selections.merge_selections,
            note=str(dtype),
            constants=common | {"ROWS": target.MERGED},
            types=_types(element, *gradients[1:]),
            warps=target.WARPS,
        )
    for kernel in (target_selections.count_selections, target_selections.order_selections):
        yield Build(
            kernel=kernel,
            note="torch.int64",
            constants={"BLOCK": target.LISTED},
            types=_types("") | {"index": "*i64", "counts": "*i32"},
            warps=target.WARPS,
        )
    windows = {"SIZE": 16, "PIECE": tiles.piece, "INDEXED": False}
    for kernel, constants, warps in (
        (
            target_kernels.combine,
            {"HEADS": 4, "HP": 4, "SIZE": DIM, "SIDE": DIM, "ROWS": 64, "WEIGHTED": True},
            target.WARPS,
        ),
        (target_groups.group_windows, {"BLOCK": tiles.plan}, target.BACKWARD_WARPS),
        (target_groups.locate_groups, {"BLOCK": target.LOCATED, "TILE": 64}, target.WARPS),
    ):
        yield Build(
            kernel=kernel,
            note="torch.float32",
            constants=windows | constants,
            types=_types("*fp32"),
            warps=warps,
        )


def build_segment_sum() -> Iterator[Build]:
    """Yields the sums and their gradient."""
    for dtype, element in _ELEMENTS.items():
        lanes = {"SEGMENTS": 1, "STEPS": segments.ROWS, "SIDE": segments.COLUMNS}
        yield Build(
            kernel=segment_kernels.sum_segments,
            note=str(dtype),
            constants=lanes,
            types=_types(element, "values"),
        )
        yield Build(
            kernel=segment_kernels.spread_gradient,
            note=str(dtype),
            constants={
                "SIDE": segments.COLUMNS,
                "TILE": segments.GRADIENT_TILE,
                "WINDOWS": segments.GRADIENT_WINDOWS,
                "DOT": DOT_TYPES[dtype],
            },
            types=_types(element, "gradient", "output"),
        )


def build_gated_scale() -> Iterator[Build]:
    """Yields forward and backward."""
    columns = gate.MAX_COLUMNS
    for kernel in (gate_kernels.forward, gate_kernels.backward):
        yield Build(
            kernel=kernel,
            note="torch.bfloat16",
            constants={"WIDTH": columns, "ROWS": gate.SIZE // columns, "W": columns},
            types=_types("*bf16", "logits", "hidden", "output", "gradient"),
        )


def build_signature_sums() -> Iterator[Build]:
    """Yields the tables, what candidates read, and the gradients; 16 signatures of 3 bits."""
    common = {"SIGNATURES": 16, "S": 16, "BUCKETS": 8, "B": 16, "DIM": DIM, "D": DIM}
    common |= {"ROWS": sdim.ROWS, "TILE": sdim.TILE, "PIECE": sdim.PIECE}
    common |= {"CANDIDATES": sdim.CANDIDATES}
    codes = {"codes": "*u8", "wanted": "*u8"}
    for dtype, element in _ELEMENTS.items():
        for kernel in (sdim_kernels.fill_tables, sdim_kernels.differentiate_behaviors):
            yield Build(
                kernel=kernel,
                note=str(dtype),
                constants=common | {"DOT": DOT_TYPES[dtype]},
                types=_types(element, "behaviors") | codes,
                warps=sdim.WARPS,
            )
    for kernel in (sdim_kernels.pool, sdim_kernels.differentiate_tables):
        yield Build(
            kernel=kernel,
            note="torch.float32",
            constants=common,
            types=_types("*fp32") | codes,
            warps=sdim.WARPS,
        )


BUILDS: dict[str, Callable[[], Iterator[Build]]] = {
    "din_attention": build_din_attention,
    "din_moments": build_din_moments,
    "searches": build_searches,
    "target_attention": build_target_attention,
    "segment_sum": build_segment_sum,
    "gated_scale": build_gated_scale,
    "signature_sums": build_signature_sums,
}
