"""The Triton kernels of the Hamming search, on a GPU or in the interpreter."""

import pytest
import torch

from ranker_kernels.hamming_topk import hamming_topk, launch, pack_bits
from ranker_kernels.hamming_topk.reference import hamming_topk_reference

# behaviours 70 to 79 belong to no window
SHARED = [(5, 39)] * 5 + [(0, 0), (5, 39), (6, 39)]
K = 3
SMALL = launch.Tiles(rows=16, keys=16)

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SELECT_TILE", 32)


@pytest.mark.parametrize("bits", [4, 100])
def test_hamming_selection_matches_the_reference(bits: int, triton_device: str) -> None:
    generator = torch.Generator().manual_seed(2026)
    windows = torch.tensor([(0, 37), (0, 37), (3, 31), (70, 70), (2, 4)])
    query, keys = (pack_bits(torch.rand(n, bits, generator=generator) < 0.5) for n in (5, 70))
    expected = hamming_topk_reference(query, keys, windows, K)
    query, keys, windows = (x.to(triton_device) for x in (query, keys, windows))
    assert torch.equal(launch.search(query, keys, windows, K, SMALL).cpu(), expected)


@pytest.mark.gpu
def test_the_op_on_a_gpu(cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    generator = torch.Generator().manual_seed(2026)
    windows = torch.tensor([(0, 3000)] * 20 + [(3000, 6000), (5, 2900), (7, 60), (9, 9)])
    query, keys = (
        pack_bits(torch.rand(rows, 64, generator=generator) < 0.5) for rows in (len(windows), 6000)
    )
    expected = hamming_topk_reference(query, keys, windows, 100)
    found = hamming_topk(query.to(cuda), keys.to(cuda), windows.to(cuda), k=100)
    assert torch.equal(found.cpu(), expected)


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
    windows = torch.tensor(SHARED)
    groups = launch.group_candidates(windows, longer_than=K, size=4, tile=16)
    assert len(groups.order) == 7
    assert (groups.ends - groups.begins).tolist() == [4, 2, 1]
    for begin, end in zip(groups.begins.tolist(), groups.ends.tolist(), strict=True):
        assert (groups.windows[begin:end] == groups.windows[begin]).all()
    # 34 and 33 behaviours are three tiles of 16
    assert torch.bincount(groups.tile_groups).tolist() == [3] * 3
    assert groups.tile_places.tolist() == [0, 1, 2] * 3
