"""The Triton kernels of the search, on a GPU or in the interpreter."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton.language as tl
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ranker_kernels.search_topk import (
    launch,
    search_topk,
    triton_choice,
    triton_groups,
    triton_kernels,
    triton_slow,
)
from ranker_kernels.search_topk.reference import search_topk_reference

K = 7
# lengths 0, 1, k, k + 1, a tile, several and an odd end; behaviours 390 to 399 belong to no window
WINDOWS = {
    "disjoint": [(0, 0), (0, 1), (1, 8), (8, 16), (16, 80), (193, 390)],
    "overlapping": [(0, 140), (0, 141), (0, 129), (390, 390), (5, 141)],
    "shared": [(5, 120)] * 18 + [(0, 0)],
    "no candidate": [],
}
SMALL = launch.Launch(
    many=launch.Tiles(rows=32, keys=64, slots=16, pairs=64, stride=1),
    few=launch.Tiles(rows=16, keys=64, slots=32, pairs=128, stride=2),
    programs=2,
)

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(autouse=True)
def coarse_bound(monkeypatch: pytest.MonkeyPatch, triton_device: str) -> None:
    """Spares the interpreter most of a loop; any bound gives the same selection."""
    if triton_device == "cpu":
        monkeypatch.setattr(triton_choice, "HALVINGS", tl.constexpr(9))


def make_inputs(
    windows: list[tuple[int, int]], *, heads: int, integral: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2026)
    # a side that is no power of two, to see the masks at work
    query = torch.randn(len(windows), heads, 12, generator=generator)
    keys = torch.randn(400, 12, generator=generator)
    bias = torch.randn(400, heads, generator=generator)
    if integral:
        query, keys, bias = query.round().clamp(-1, 1), keys.round().clamp(-1, 1), bias.round()
    keys[390:], bias[390:] = torch.nan, torch.nan
    return query, keys, bias, torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)


def search(
    inputs: tuple[Tensor, Tensor, Tensor | None, Tensor],
    k: int,
    device: str,
    tiles: launch.Launch = SMALL,
) -> Tensor:
    query, keys, bias, windows = (None if x is None else x.to(device) for x in inputs)
    assert query is not None
    assert keys is not None
    assert windows is not None
    return launch.search(query, keys, bias, windows, k, tiles).cpu()


def count_lost(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Returns where the counters of later searches will be."""
    seen: list[Tensor] = []
    slowly = triton_slow.search_slowly

    class Watched:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            def run(*arguments: Tensor, **constants: object) -> None:
                seen.append(arguments[8])
                slowly[grid](*arguments, **constants)

            return run

    monkeypatch.setattr(launch, "search_slowly", Watched())
    return seen


@pytest.mark.parametrize(("heads", "integral"), [(1, False), (3, True)], ids=["one", "ties"])
@pytest.mark.parametrize("name", WINDOWS)
def test_selection_matches_the_sequential_walk(
    name: str, heads: int, integral: bool, triton_device: str
) -> None:
    query, keys, bias, windows = make_inputs(WINDOWS[name], heads=heads, integral=integral)
    inputs = (query, keys, bias if integral else None, windows)
    expected = search_topk_reference(*inputs, K)
    assert torch.equal(search(inputs, K, triton_device), expected)


@pytest.mark.parametrize("k", [1, 100])
def test_k_from_one_to_more_than_a_tile(k: int, triton_device: str) -> None:
    query, keys, _, windows = make_inputs([(0, 150), (3, 390)], heads=1, integral=False)
    expected = search_topk_reference(query, keys, None, windows, k)
    assert torch.equal(search((query, keys, None, windows), k, triton_device), expected)


@pytest.mark.parametrize("shared", [1, 20], ids=["few", "many"])
def test_equal_scores_need_no_second_search(
    shared: int, triton_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, keys, _, windows = make_inputs([(3, 390)] * shared, heads=1, integral=False)
    # minus zero equals zero
    inputs = (torch.where(query > 0, 0.0, -0.0), keys, None, windows)
    counters = count_lost(monkeypatch)
    found = search(inputs, K, triton_device)
    assert torch.equal(found, torch.arange(3, 3 + K).expand(shared, K))
    assert counters[0][4] == 0


@pytest.mark.parametrize("name", ["overlapping", "shared"])
def test_keys_that_fit_no_tile_are_searched_slowly(name: str, triton_device: str) -> None:
    # tiles of a megabyte, groups of both kinds
    large = dataclasses.replace(SMALL.many, keys=1 << 14)
    inputs = make_inputs(WINDOWS[name], heads=3, integral=True)
    found = search(inputs, K, triton_device, dataclasses.replace(SMALL, many=large))
    assert torch.equal(found, search_topk_reference(*inputs, K))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_fit_into_shared_memory(dtype: torch.dtype) -> None:
    for k, dim, heads in itertools.product((1, 100, 500, 5000), (16, 64, 256, 512), (1, 4, 20)):
        row_bytes = dim * dtype.itemsize
        tiles = launch.choose_tiles(dtype, k, has_bias=False)
        sides = [found.sides for found in launch.Launch(*tiles, 264).fit(heads, row_bytes)]
        assert sides or k > 100 or row_bytes > 512
        for side in (*sides, launch.slow_sides(tiles[0], heads, row_bytes)):
            rows = side["ROWS"] + side["num_stages"] * side["TILE"]
            assert 0 < rows * row_bytes <= launch.SHARED_BYTES
    with pytest.raises(ValueError, match="keys of 65536 bytes do not fit"):
        launch.slow_sides(tiles[0], 1, 1 << 16)


@pytest.mark.parametrize("kilobytes", [99, 163])
def test_tiles_fit_into_smaller_memories_than_hoppers(kilobytes: int) -> None:
    memory = kilobytes * 1024 - launch.SUM_BYTES
    for k, dim, heads in itertools.product((1, 100, 500), (16, 64, 128), (1, 4)):
        tiles = launch.choose_tiles(torch.bfloat16, k, has_bias=False)
        kinds = launch.Launch(*tiles, programs=264, shared_bytes=memory).fit(heads, 2 * dim)
        slow = launch.slow_sides(tiles[0], heads, 2 * dim, memory)
        for side in (*(found.sides for found in kinds), slow):
            assert 0 < (side["ROWS"] + side["num_stages"] * side["TILE"]) * 2 * dim <= memory
        assert kinds or k > 100


@pytest.mark.parametrize(("shared", "period"), [(1, 1), (20, 64)], ids=["few", "many"])
def test_scores_that_overflow_the_pad_are_searched_again(
    shared: int, period: int, triton_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, keys, bias, windows = make_inputs([(3, 250)] * shared, heads=1, integral=False)
    # scores that are high for a while, or at the same places of every tile
    high = torch.arange(60) + 130 if period == 1 else torch.arange(3)[:, None] * 64 + 3
    if period == 64:
        high = (high + torch.arange(9)).flatten()
    bias[high] += 50 + torch.arange(high.numel())[:, None] / 64
    inputs = (query, keys, bias, windows)
    counters = count_lost(monkeypatch)
    tight = launch.Launch(
        many=launch.Tiles(rows=32, keys=64, slots=8, pairs=32, stride=1),
        few=launch.Tiles(rows=16, keys=64, slots=8, pairs=32, stride=1),
        programs=2,
    )
    expected = search_topk_reference(*inputs, 20)
    assert torch.equal(search(inputs, 20, triton_device, tight), expected)
    assert counters[0][4] > 0


# NumPy's, in the interpreter
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("heads", [1, 3])
def test_whatever_the_numbers_positions_lie_in_the_window(heads: int, triton_device: str) -> None:
    spans = [(3, 250)] * 5 + [(260, 300)]
    query, keys, _, windows = make_inputs(spans, heads=heads, integral=False)
    inputs = (query.clone(), keys, None, windows)
    # the products of the last overflow
    inputs[0][1], inputs[0][2, :, 0], inputs[0][3] = torch.nan, torch.inf, 3e38
    # three numbers in a window, fewer than k
    keys[261:298] = torch.nan
    found = search(inputs, K, triton_device)
    assert ((found >= windows[:, :1]) & (found < windows[:, 1:])).all()
    assert (found.diff(dim=1) > 0).all()
    assert heads > 1 or {260, 298, 299} <= set(found[5].tolist())
    for whole in (0, 4):
        one = (query[[whole]], keys, None, windows[[whole]])
        assert torch.equal(found[[whole]], search_topk_reference(*one, K))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinite_scores_stay_in_their_part_of_the_pad(
    triton_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, keys, _, windows = make_inputs([(0, 128)] * 16, heads=1, integral=False)
    # more than a part has room for, fewer than k, in the last part of the last row
    keys[6:128:8, 0] = torch.inf
    query[:, 0] = query[:, 0].abs()
    pads: list[Tensor] = []

    class Guarded(launch._Pads):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            pad, notes, places = self.tensors
            pads.append(torch.cat([pad, pad.new_full((1024,), 7)]))
            self.tensors = (pads[0][: len(pad)], notes, places)

    monkeypatch.setattr(launch, "_Pads", Guarded)
    narrow = dataclasses.replace(SMALL.few, slots=8, pairs=32)
    one = launch.Launch(many=SMALL.many, few=narrow, programs=1)
    found = search((query, keys, None, windows), 20, triton_device, one)
    assert (pads[0][-1024:] == 7).all()
    assert all(set(range(6, 128, 8)) <= set(row) for row in found.tolist())


def test_int8_and_bfloat16_keys(triton_device: str) -> None:
    query, keys, _, windows = make_inputs(WINDOWS["overlapping"], heads=2, integral=False)
    low_query, keys = query.bfloat16(), keys.nan_to_num()
    for low in ((keys * 30).round().to(torch.int8), keys.bfloat16()):
        expected = search_topk_reference(low_query.float(), low.float(), None, windows, K)
        assert torch.equal(search((low_query, low, None, windows), K, triton_device), expected)
        assert torch.equal(search_topk(low_query, low, None, windows, k=K), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_op_on_a_gpu(dtype: torch.dtype, heads: int, cuda: str) -> None:
    generator = torch.Generator().manual_seed(2026)

    def draw(*shape: int) -> Tensor:
        # quarters, of which all sums of products are exact
        drawn = torch.randn(shape, generator=generator)
        return drawn.mul(4).round().clamp(-8, 8).div(4).to(dtype)

    windows = [(0, 3000)] * 40 + [(3000, 6000), (5, 2900), (5, 2890), (7, 60), (9, 9)]
    query, keys = draw(len(windows), heads, 64), draw(6000, 64)
    bias = draw(6000, heads) if heads > 1 else None
    table = torch.tensor(windows)
    exact = (query.float(), keys.float(), None if bias is None else bias.float(), table)
    expected = search_topk_reference(*exact, 100)
    given = (query.to(cuda), keys.to(cuda), None if bias is None else bias.to(cuda))
    assert torch.equal(search_topk(*given, table.to(cuda), k=100).cpu(), expected)


def test_groups_share_a_begin_and_nearly_a_length(triton_device: str) -> None:
    windows = torch.tensor([(0, 100), (0, 103)] * 3 + [(0, 5), (0, 200), (9, 100), (0, 101)])
    codes = (windows[:, 0] * 2**32 + windows[:, 1]).sort().values.to(triton_device)
    firsts, lasts = torch.zeros(2, 20, dtype=torch.int32, device=triton_device)
    counters = firsts.new_zeros(5)
    triton_groups.group[(1,)](codes, firsts, lasts, counters, 10, K, 4, 2, BLOCK=16)
    # (0, 5) has nothing to select; seven of nearly one length are four and three
    assert counters.tolist() == [2, 2, 0, 0, 0]
    found = sorted(zip(firsts.tolist(), lasts.tolist(), strict=True))
    assert found[-4:] == [(1, 5), (5, 8), (8, 9), (9, 10)]


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what PyTorch runs, and how much it allocates."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()
        self.numbers = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        self.names.add(op.overloadpacket.__name__)
        if "empty" in op.overloadpacket.__name__:
            self.numbers += result.numel()
        return result


class Idle:
    """A kernel that does nothing."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments, **constants: None


def test_it_neither_waits_for_the_device_nor_grows_with_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "group", Idle())
    monkeypatch.setattr(launch, "merge", Idle())
    monkeypatch.setattr(triton_kernels, "search", Idle())
    monkeypatch.setattr(launch, "search_slowly", Idle())
    allocated = []
    for end in (50, 390):
        query, keys, bias, windows = make_inputs([(5, end)] * 40, heads=2, integral=False)
        with Watch() as watch:
            launch.search(query, keys, bias, windows, K, SMALL)
        assert not watch.names & {"nonzero", "_local_scalar_dense", "repeat_interleave"}
        allocated.append(watch.numbers)
    assert allocated[0] == allocated[1] > 0
