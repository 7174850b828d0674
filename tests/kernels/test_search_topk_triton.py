"""The Triton kernels of the search, on a GPU or in the interpreter."""

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


def test_int8_and_bfloat16_keys(triton_device: str) -> None:
    query, keys, _, windows = make_inputs(WINDOWS["overlapping"], heads=2, integral=False)
    low_query, keys = query.bfloat16(), keys.nan_to_num()
    for low in ((keys * 30).round().to(torch.int8), keys.bfloat16()):
        expected = search_topk_reference(low_query.float(), low.float(), None, windows, K)
        assert torch.equal(search((low_query, low, None, windows), K, triton_device), expected)
        assert torch.equal(search_topk(low_query, low, None, windows, k=K), expected)


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
