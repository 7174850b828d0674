"""Distinct ids and flagged rows: compiled code and PyTorch give the same bits."""

import pytest
import torch
from torch import Tensor

from ranker_kernels import numbering
from ranker_kernels.native import SWITCH

LARGE = 2**63 - 1


def draw(low: int, high: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(low, high, (count,), generator=generator)


COLUMNS = {
    "none": torch.zeros(0, dtype=torch.int64),
    "one": torch.tensor([7]),
    "one that is large": torch.tensor([LARGE]),
    "all the same": torch.full((1000,), 64),
    "edges of words": torch.tensor([63, 64, 127, 128, 0, 63, 191, 192]),
    "few, often": draw(1, 50, 10_000),
    "as many as rows": draw(0, 10_000, 10_000),
    "fifteen for each row": draw(0, 15_000, 1000),
    "far from zero": draw(10**12, 10**12 + 500, 1000),
    "negative": draw(-300, 300, 1000),
    "huge gaps": draw(0, LARGE, 1000),
    "the whole range": torch.tensor([-(2**63), LARGE, 0, LARGE, -(2**63)]),
    "not contiguous": draw(0, 500, 2000)[::2],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_ids_are_numbered_in_their_order(name: str) -> None:
    assert numbering.find_library() is not None
    ids = COLUMNS[name]
    found, places = numbering.distinct(ids)
    assert found.tolist() == sorted(set(ids.tolist()))
    assert torch.equal(found[places], ids)
    for actual, expected in zip((found, places), numbering.distinct_in_torch(ids), strict=True):
        assert actual.dtype == torch.int64
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 1000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_flagged_rows_are_numbered(count: int, share: float) -> None:
    flags = torch.rand(count, generator=torch.Generator().manual_seed(count)) < share
    rows, places = numbering.number_flags(flags)
    assert torch.equal(rows, flags.nonzero()[:, 0])
    assert places.tolist() == [int(flags[:end].sum()) for end in range(count + 1)]
    for actual, expected in zip(
        (rows, places), numbering.number_flags_in_torch(flags), strict=True
    ):
        assert torch.equal(actual, expected)


def test_flags_need_not_lie_side_by_side() -> None:
    flags = torch.tensor([True, False, False, True, True, True])[::2]
    assert numbering.number_flags(flags)[0].tolist() == [0, 2]


def test_flags_of_another_dtype_or_beside_another_default_device() -> None:
    flags = torch.tensor([2, 0, 0, 5])
    assert [part.tolist() for part in numbering.number_flags(flags > 0)] == [
        [0, 3],
        [0, 1, 1, 1, 2],
    ]
    with torch.device("meta"):
        rows, _ = numbering.number_flags(flags > 0)
    assert rows.tolist() == [0, 3]
    assert numbering.number_flags(flags)[0].tolist() == [0, 3]


def test_without_compiled_code_pytorch_numbers_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    assert numbering.find_library() is None
    found, places = numbering.distinct(torch.tensor([5, 3, 5]))
    assert (found.tolist(), places.tolist()) == ([3, 5], [1, 0, 1])
    rows, before = numbering.number_flags(torch.tensor([False, True]))
    assert (rows.tolist(), before.tolist()) == ([1], [0, 0, 1])
