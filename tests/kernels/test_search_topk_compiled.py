"""The compiled path of `search_topk`: odd sizes, many rows, long windows, ties, threads, NaN."""

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ranker_kernels.search_topk import DistinctRows, blocked, compiled


@pytest.fixture
def library() -> Iterator[ctypes.CDLL]:
    """The compiled code; threads are as they were afterwards."""
    found = compiled.find_library()
    assert found is not None, "these tests need a C++ compiler"
    before = torch.get_num_threads()
    yield found
    torch.set_num_threads(before)


# what Linux tells about this process; writing 5 begins the peak anew
PEAK, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes() -> int:
    """Returns the most memory that was resident since the last reset."""
    found = re.search(r"VmHWM:\s+(\d+) kB", PEAK.read_text())
    assert found is not None
    return int(found[1]) * 1024


def draw(
    generator: torch.Generator,
    *,
    windows: list[tuple[int, int]],
    heads: int,
    widths: tuple[int, ...] = (16, 5),
    ties: bool = False,
    bias: bool = False,
) -> tuple[Tensor, DistinctRows, Tensor | None, Tensor]:
    """Draws candidates and behaviours; the first block of columns repeats little, others much."""
    count = max(end for _, end in windows)

    def numbers(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator)
        # sums of small integers: exact, and often equal
        return drawn.round().clamp(-1, 1) if ties else drawn

    values, rows = [], []
    for block, width in enumerate(widths):
        size = count if block == 0 else 7 * block
        values.append(numbers(size, width))
        rows.append(torch.randint(size, (count,), generator=generator))
    return (
        numbers(len(windows), heads, sum(widths)),
        DistinctRows(tuple(values), tuple(rows)),
        numbers(count, heads) if bias else None,
        torch.tensor(windows),
    )


# requests of one user, whose windows move on; alone and unsorted; short ones among them
MOVING = [(i, 700 + i) for i in range(0, 60, 7)]
ALONE = [(900, 2000), (0, 512), (513, 513), (512, 640), (300, 345), (1990, 2000)]


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("heads", [1, 2, 3, 4, 7, 8, 16, 70])
def test_it_selects_what_pytorch_does(heads: int, ties: bool, library: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(heads)
    for k in (1, 13, 100, 600):
        inputs = draw(
            generator,
            windows=[*ALONE, *MOVING, *[(0, 2000)] * 5],
            heads=heads,
            ties=ties,
            bias=k % 2 == 1,
        )
        assert torch.equal(compiled.search(library, *inputs, k), blocked.search(*inputs, k))


@pytest.mark.parametrize("widths", [(1,), (64,), (3, 16, 1), (200, 4, 4)])
def test_blocks_of_any_width(widths: tuple[int, ...], library: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(1)
    query, keys, _, windows = draw(
        generator, windows=[(0, 900), (5, 900), (7, 700)], heads=4, widths=widths
    )
    expected = blocked.search(query, keys, None, windows, 50)
    assert torch.equal(compiled.search(library, query, keys, None, windows, 50), expected)
    # rows of their own, not contiguous, in another precision
    matrix = keys.between(0, 900).double().T.contiguous().T
    own = DistinctRows((matrix,), (None,))
    assert torch.equal(compiled.search(library, query, own, None, windows, 50), expected)


def test_the_same_bits_in_any_company_and_with_any_threads(library: ctypes.CDLL) -> None:
    # the last bits of two scores that are nearly equal decide: all of a group must agree on them
    generator = torch.Generator().manual_seed(2)
    windows = [(0, 3000)] * 40 + [(3000, 5000)] * 3 + [(i, 2990 + i) for i in range(30)]
    query, keys, _, bounds = draw(generator, windows=windows, heads=4)
    keys = keys.map(lambda values: values * 1e-4 + 1)
    torch.set_num_threads(1)
    together = compiled.search(library, query, keys, None, bounds, 100)
    for c in range(0, len(windows), 9):
        alone = slice(c, c + 1)
        found = compiled.search(library, query[alone], keys, None, bounds[alone], 100)
        assert torch.equal(found, together[alone])
    torch.set_num_threads(3)
    assert torch.equal(compiled.search(library, query, keys, None, bounds, 100), together)


@pytest.mark.parametrize("window", [(0, 21), (-1, 9), (20, 2**62)])
def test_windows_that_point_outside_are_refused(
    window: tuple[int, int], library: ctypes.CDLL
) -> None:
    inputs = draw(torch.Generator().manual_seed(3), windows=[(0, 20), (30, 30)], heads=2)
    # where an empty window lies does not matter
    compiled.search(library, *inputs, 4)
    inputs[3][0] = torch.tensor(window)
    keys = DistinctRows(
        inputs[1].values, tuple(part[:20] for part in inputs[1].rows if part is not None)
    )
    with pytest.raises(IndexError, match="outside the 20 behaviours"):
        compiled.search(library, inputs[0], keys, None, inputs[3], 4)


def test_rows_of_another_integer_type_are_understood(library: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(6)
    query, keys, _, windows = draw(generator, windows=[(0, 900), (5, 700)], heads=2)
    narrow = DistinctRows(keys.values, tuple(part.int() for part in keys.rows if part is not None))
    expected = compiled.search(library, query, keys, None, windows, 30)
    assert torch.equal(compiled.search(library, query, narrow, None, windows, 30), expected)


def test_rising_scores_replace_all_that_was_kept(library: ctypes.CDLL) -> None:
    # every behaviour is among the best so far: the most that can be kept and thrown away
    keys = torch.arange(20_000.0).unsqueeze(1)
    query = torch.tensor([[[1.0], [-1.0], [0.0]]])
    rows = DistinctRows((keys,), (None,))
    windows = torch.tensor([[0, 20_000]])
    expected = blocked.search(query, rows, None, windows, 90)
    assert torch.equal(compiled.search(library, query, rows, None, windows, 90), expected)
    assert {0, 19_999, 29} <= set(expected[0].tolist())


def test_scores_that_are_no_numbers_do_no_harm(library: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(4)
    query, keys, _, windows = draw(generator, windows=[(0, 1500), (3, 1500), (3, 1400)], heads=4)
    for broken in (torch.nan, -torch.nan, torch.inf, -torch.inf):
        values = keys.values[0].clone()
        values[::2, 0] = broken
        hurt = DistinctRows((values, keys.values[1]), keys.rows)
        index = compiled.search(library, query, hurt, None, windows, 100)
        assert bool((index.diff(dim=1) > 0).all())
        assert bool((index >= windows[:, :1]).all() and (index < windows[:, 1:]).all())
    # a candidate that is broken itself
    query[1] = torch.nan
    index = compiled.search(library, query, keys, None, windows, 100)
    expected = blocked.search(query[::2], keys, None, windows[::2], 100)
    assert torch.equal(index[::2], expected)
    assert bool((index.diff(dim=1) > 0).all())


@pytest.mark.skipif(not PEAK.is_file(), reason="asks Linux for the peak of memory")
def test_memory_does_not_grow_with_candidates_times_length(library: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(5)
    inputs = draw(generator, windows=[(0, 100_000)] * 1000, heads=1, widths=(2,))
    compiled.search(library, *(inputs[0][:1], *inputs[1:3], inputs[3][:1]), 10)
    RESET.write_text("5")
    before = peak_bytes()
    compiled.search(library, *inputs, 10)
    # scores would take 400 MB
    assert peak_bytes() - before < 20e6
