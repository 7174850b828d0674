"""How the Triton kernels of the search are launched; nothing here waits for the device."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ranker_kernels.search_topk import triton_kernels
from ranker_kernels.search_topk.triton_groups import group
from ranker_kernels.search_topk.triton_merge import merge
from ranker_kernels.search_topk.triton_slow import search_slowly
from ranker_kernels.triton_kernels import choose_dot_type, tile_side

MERGE_WARPS = 4
SLOW_WARPS, SLOW_KEYS = 8, 64
# bytes of shared memory through which a program moves its sums, and those that are left on a Hopper
# GPU for queries and keys
SUM_BYTES = 16 * 1024
SHARED_BYTES = 227 * 1024 - SUM_BYTES
# candidates whose groups a program finds at a time
BLOCK = 256
# pairs of the pad that are looked at together
CHOSEN_AT_ONCE = 2048
# programs of a multiprocessor, as many as registers allow
PROGRAMS = 2


@dataclass(frozen=True)
class Tiles:
    """How one kind of groups is searched.

    Attributes:
        rows: candidates of a group times heads, at most.
        keys: scored at a time; the bound is the better, the further they exceed k.
        slots: pairs that a class of a row has room for.
        pairs: of a row, in all classes.
        stride: the bound comes from every so many tiles.
        warps: of a program.
        stages: tiles of keys that are under way, at most.
    """

    rows: int
    keys: int
    slots: int
    pairs: int
    stride: int
    warps: int = 8
    stages: int = 3

    @property
    def classes(self) -> int:
        """Parts of the pad of a row."""
        return self.keys // 16

    @property
    def sides(self) -> dict[str, int]:
        """Constants of a program that scores such tiles."""
        return {
            "ROWS": self.rows,
            "TILE": self.keys,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }

    @property
    def chunk(self) -> int:
        """Rows that are chosen from at a time."""
        return min(self.rows, max(1, CHOSEN_AT_ONCE // self.pairs))

    def fit(self, heads: int, row_bytes: int, shared_bytes: int = SHARED_BYTES) -> "Tiles | None":
        """Returns the same with room for all heads of a candidate.

        There are as many stages as shared memory holds; None if it does not hold one.
        """
        rows = max(self.rows, tile_side(heads))
        # more for narrow rows, so that a multiprocessor holds two programs
        stages = min(self.stages, 3 if row_bytes <= 256 else 2)
        stages = min(stages, (shared_bytes // row_bytes - rows) // self.keys)
        return replace(self, rows=rows, stages=stages) if stages > 0 else None


@dataclass(frozen=True)
class Launch:
    """How a search is spread over the device.

    Attributes:
        many, few: for groups of many rows, and of few.
        programs: that the device holds at once.
        shared_bytes: of shared memory that a program has for queries and keys.
    """

    many: Tiles
    few: Tiles
    programs: int
    shared_bytes: int = SHARED_BYTES

    def fit(self, heads: int, row_bytes: int) -> list[Tiles]:
        """Returns tiles of both kinds, or none if shared memory is too small for one of them."""
        kinds = [tiles.fit(heads, row_bytes, self.shared_bytes) for tiles in (self.many, self.few)]
        fitting = [tiles for tiles in kinds if tiles is not None]
        return fitting if len(fitting) == len(kinds) else []


def choose_tiles(dtype: torch.dtype, k: int, *, has_bias: bool) -> tuple[Tiles, Tiles]:
    """Returns tiles for groups of many rows and of few (sm_90, width 64, no spill).

    Many rows are bound by arithmetic: whole windows give the bound, so that little is collected.
    Few are bound by reading keys: a part of them is read twice, and more collected instead.
    """
    # the k-th highest of the tile's residues bounds well while a fifth of them is to spare
    side = min(1024, max(128, tile_side(k * 5 // 4)))
    if dtype.itemsize > 2:
        # exact products take the registers that copies under way would need
        stages = 1 if has_bias else 3
        return (
            Tiles(16, side, slots=64, pairs=2 * side, stride=1, stages=stages),
            Tiles(16, side, slots=256, pairs=16 * side, stride=4, warps=16, stages=min(2, stages)),
        )
    wide = max(side, min(512, max(256, tile_side(k * 5 // 2))))
    rows = max(16, min(64, 8192 // side))
    warps = 8 if has_bias or side > 256 else 4
    return (
        Tiles(rows, side, slots=64, pairs=2 * side, stride=1, warps=warps),
        Tiles(16, wide, slots=128, pairs=8 * wide, stride=8),
    )


def slow_sides(
    tiles: Tiles, heads: int, row_bytes: int, shared_bytes: int = SHARED_BYTES
) -> dict[str, int]:
    """Returns the constants of `search_slowly` for groups that fit the given tiles."""
    slow = replace(tiles, keys=SLOW_KEYS, warps=SLOW_WARPS)
    # tensor cores take 16 at least
    memory = (heads, row_bytes, shared_bytes)
    fitting = slow.fit(*memory) or replace(slow, keys=16).fit(*memory)
    if fitting is None:
        raise ValueError(
            f"keys of {row_bytes} bytes do not fit into the memory of a multiprocessor; search "
            "narrower ones, or in 16 bits"
        )
    return fitting.sides


def choose_launch(query: Tensor, keys: Tensor, bias: Tensor | None, k: int) -> Launch:
    """Returns as many programs as the device holds at once."""
    properties = torch.cuda.get_device_properties(query.device)
    dtype = torch.promote_types(query.dtype, keys.dtype)
    tiles = choose_tiles(dtype, k, has_bias=bias is not None)
    return Launch(
        *tiles,
        programs=PROGRAMS * properties.multi_processor_count,
        # the stub does not know it
        shared_bytes=properties.shared_memory_per_block_optin - SUM_BYTES,  # type: ignore[attr-defined]
    )


def search(
    query: Tensor, keys: Tensor, bias: Tensor | None, windows: Tensor, k: int, launch: Launch
) -> Tensor:
    """Computes what `blocked.search` does; keys are `[N, D]`, fewer than 2^31."""
    count, heads, dim = query.shape
    index = windows.new_empty(count, k)
    if not count:
        return index
    windows = windows.contiguous()
    positions = torch.empty(count, heads, k, dtype=torch.int32, device=query.device)
    with_values = heads > 1
    values = query.new_empty(positions.shape if with_values else 0, dtype=torch.float32)
    dtype = torch.promote_types(query.dtype, keys.dtype)
    row_bytes = tile_side(dim) * dtype.itemsize
    kinds = launch.fit(heads, row_bytes)
    slow = slow_sides(launch.many, heads, row_bytes, launch.shared_bytes)
    # sorted by begin, then by end
    codes, order = torch.add(windows[:, 1], windows[:, 0], alpha=1 << 32).sort()
    # each begins on 16 bytes: there are builds for pointers that do, and others
    firsts, lasts = (positions.new_empty(2 * count) for _ in range(2))
    counters = firsts.new_zeros(5)
    group[(-(-count // BLOCK),)](
        *(codes, firsts, lasts, counters, count, k),
        *(slow["ROWS"] // heads, launch.few.rows // heads),
        BLOCK=BLOCK,
    )
    operands = (query.contiguous(), keys.contiguous(), keys if bias is None else bias.contiguous())
    lost = torch.empty_like(order, dtype=torch.int32)
    where = (codes, order, firsts, lasts, lost, counters)
    constants = {
        "HEADS": heads,
        "DIM": dim,
        "D": tile_side(dim),
        "HAS_BIAS": bias is not None,
        "DOT": choose_dot_type(query, keys),
        "WITH_VALUES": with_values,
    }
    programs = min(launch.programs, count)
    pads = _Pads(kinds, programs, query.device) if kinds else None
    for kind, tiles in enumerate(kinds):
        assert pads is not None
        triton_kernels.search[(programs,)](
            *(*operands, *where, *pads.tensors, positions, values, kind, count, k),
            SLOTS=tiles.slots,
            PAIRS=tiles.pairs,
            STRIDE=tiles.stride,
            CHUNK=tiles.chunk,
            NATIVE=query.is_cuda,
            **tiles.sides,
            **constants,
        )
    search_slowly[(programs,)](
        *(*operands, *where, positions, values, count, k),
        ALL=not kinds,
        **slow,
        **constants,
    )
    merge[(count,)](
        *(positions, values, windows, index, k),
        HEADS=heads,
        HP=1 << (heads - 1).bit_length(),
        KP=tile_side(k),
        num_warps=1 if heads == 1 else MERGE_WARPS,
    )
    return index


class _Pads:
    """Scratch memory of the programs, which kernels that run one after the other share."""

    def __init__(self, kinds: list[Tiles], programs: int, device: torch.device) -> None:
        pairs = max(tiles.rows * tiles.classes * tiles.slots for tiles in kinds)
        rows = max(tiles.rows for tiles in kinds)
        notes = max(tiles.rows * (tiles.classes + 2) for tiles in kinds)
        self.tensors = (
            torch.empty(programs * pairs * 4, dtype=torch.int32, device=device),
            torch.empty(programs * notes, dtype=torch.int32, device=device),
            torch.empty(programs * rows, dtype=torch.int64, device=device),
        )
