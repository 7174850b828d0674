"""The Triton kernels of the searches on CPU, run by the interpreter."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

if os.environ.setdefault("TRITON_INTERPRET", "1") != "1":
    pytest.skip("the kernels run on CPU with TRITON_INTERPRET=1", allow_module_level=True)

from ranker_kernels.hamming_topk import launch as hamming_launch
from ranker_kernels.hamming_topk import pack_bits
from ranker_kernels.hamming_topk.reference import hamming_topk_reference
from ranker_kernels.search_topk import launch
from ranker_kernels.search_topk.reference import search_topk_reference

ROOT = Path(__file__).parents[2]

# lengths 0, 1, k, k + 1, a tile, a tile + 1; behaviours 70 to 79 belong to no window
WINDOWS = {
    "disjoint": [(0, 0), (0, 1), (1, 4), (4, 8), (8, 24), (24, 41), (41, 70)],
    "overlapping": [(0, 37), (3, 31), (70, 70), (10, 30)],
    "shared": [(5, 39)] * 5 + [(0, 0), (5, 39), (6, 39)],
    "no candidate": [],
}
K = 3
SMALL = launch.Tiles(rows=16, keys=16)


@pytest.fixture(autouse=True)
def small_tiles_in_poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fills every tensor that is allocated without values with NaN, or the largest integer."""
    monkeypatch.setattr(launch, "SELECT_TILE", 32)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make_inputs(
    windows: list[tuple[int, int]], *, heads: int, integral: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2026)
    # a side that is no power of two, to see the masks at work
    query = torch.randn(len(windows), heads, 12, generator=generator)
    keys = torch.randn(80, 12, generator=generator)
    bias = torch.randn(80, heads, generator=generator)
    if integral:
        query, keys, bias = query.round().clamp(-1, 1), keys.round().clamp(-1, 1), bias.round()
    keys[70:], bias[70:] = torch.nan, torch.nan
    return query, keys, bias, torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)


@pytest.mark.parametrize("integral", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("name", WINDOWS)
def test_selection_matches_the_sequential_walk(name: str, integral: bool) -> None:
    query, keys, bias, windows = make_inputs(WINDOWS[name], heads=2, integral=integral)
    given = bias if integral else None
    expected = search_topk_reference(query, keys, given, windows, K)
    assert torch.equal(launch.search(query, keys, given, windows, K, SMALL), expected)


@pytest.mark.parametrize("bits", [4, 100])
def test_hamming_selection_matches_the_reference(bits: int) -> None:
    generator = torch.Generator().manual_seed(2026)
    windows = torch.tensor([(0, 37), (0, 37), (3, 31), (70, 70), (2, 4)])
    query, keys = (pack_bits(torch.rand(n, bits, generator=generator) < 0.5) for n in (5, 70))
    expected = hamming_topk_reference(query, keys, windows, K)
    assert torch.equal(hamming_launch.search(query, keys, windows, K, SMALL), expected)


def test_equal_scores_everywhere_and_signs_of_zero() -> None:
    scores = torch.tensor([0.0, -0.0, 0.0, -1.0, 2.0, -0.0, 0.0, -3.0, -torch.inf, 2.0])
    starts, lengths = torch.tensor([0, 0, 3]), torch.tensor([10, 10, 4])
    for k, expected in ((4, [0, 1, 4, 9]), (3, [0, 4, 9])):
        positions, values = launch.select_rows(scores, starts[:2], lengths[:2], k)
        assert positions.tolist() == [expected] * 2
        assert torch.equal(values, scores[positions])
    positions, _ = launch.select_rows(scores, starts[2:], lengths[2:], 4)
    assert positions.tolist() == [[0, 1, 2, 3]]


def test_groups_have_one_window_and_at_most_their_size() -> None:
    windows = torch.tensor(WINDOWS["shared"])
    groups = launch.group_candidates(windows, longer_than=K, size=4, tile=16)
    assert len(groups.order) == 7
    assert (groups.ends - groups.begins).tolist() == [4, 2, 1]
    for begin, end in zip(groups.begins.tolist(), groups.ends.tolist(), strict=True):
        assert (groups.windows[begin:end] == groups.windows[begin]).all()
    # 34 and 33 behaviours are three tiles of 16
    assert torch.bincount(groups.tile_groups).tolist() == [3] * 3
    assert groups.tile_places.tolist() == [0, 1, 2] * 3


@pytest.mark.slow
def test_kernels_compile_for_hopper_without_spilling() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT / "kernels")
    printed = subprocess.run(
        [sys.executable, ROOT / "kernels" / "benchmarks" / "compile_search.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kernels = [json.loads(line) for line in printed.splitlines()]
    assert [kernel["kernel"] for kernel in kernels] == ["score", "score", "select", "closeness"]
    for kernel in kernels:
        assert kernel["spilled_bytes"] == 0, kernel
        assert kernel["shared_bytes"] <= 227 * 1024, kernel
    assert kernels[0]["wgmma"] > 0
