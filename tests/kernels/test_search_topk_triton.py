"""The Triton kernels of the searches, on a GPU or in the interpreter."""

import pytest
import torch
from torch import Tensor

from ranker_kernels.hamming_topk import launch as hamming_launch
from ranker_kernels.hamming_topk import pack_bits
from ranker_kernels.hamming_topk.reference import hamming_topk_reference
from ranker_kernels.search_topk import launch
from ranker_kernels.search_topk.reference import search_topk_reference

# lengths 0, 1, k, k + 1, a tile, a tile + 1; behaviours 70 to 79 belong to no window
WINDOWS = {
    "disjoint": [(0, 0), (0, 1), (1, 4), (4, 8), (8, 24), (24, 41), (41, 70)],
    "overlapping": [(0, 37), (3, 31), (70, 70), (10, 30)],
    "shared": [(5, 39)] * 5 + [(0, 0), (5, 39), (6, 39)],
    "no candidate": [],
}
K = 3
SMALL = launch.Tiles(rows=16, keys=16)

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SELECT_TILE", 32)


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
def test_selection_matches_the_sequential_walk(
    name: str, integral: bool, triton_device: str
) -> None:
    query, keys, bias, windows = make_inputs(WINDOWS[name], heads=2, integral=integral)
    given = bias if integral else None
    expected = search_topk_reference(query, keys, given, windows, K)
    query, keys, windows = (x.to(triton_device) for x in (query, keys, windows))
    given = None if given is None else given.to(triton_device)
    assert torch.equal(launch.search(query, keys, given, windows, K, SMALL).cpu(), expected)


@pytest.mark.parametrize("bits", [4, 100])
def test_hamming_selection_matches_the_reference(bits: int, triton_device: str) -> None:
    generator = torch.Generator().manual_seed(2026)
    windows = torch.tensor([(0, 37), (0, 37), (3, 31), (70, 70), (2, 4)])
    query, keys = (pack_bits(torch.rand(n, bits, generator=generator) < 0.5) for n in (5, 70))
    expected = hamming_topk_reference(query, keys, windows, K)
    query, keys, windows = (x.to(triton_device) for x in (query, keys, windows))
    assert torch.equal(hamming_launch.search(query, keys, windows, K, SMALL).cpu(), expected)


def test_equal_scores_everywhere_and_signs_of_zero(triton_device: str) -> None:
    scores = torch.tensor([0.0, -0.0, 0.0, -1.0, 2.0, -0.0, 0.0, -3.0, -torch.inf, 2.0])
    scores = scores.to(triton_device)
    starts, lengths = torch.tensor([[0, 0, 3], [10, 10, 4]], device=triton_device)
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
