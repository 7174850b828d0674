from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ranker_kernels.embedding_rows import find_library, gather_rows, update_rowwise_adagrad

LR, EPS = 0.1, 1e-4


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(rows: int, count: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns a table, its accumulators, rows (half of them few, the rest any) and gradients."""
    generator = torch.Generator().manual_seed(count)
    few = torch.randint(0, min(rows, 5), (count // 2,), generator=generator)
    some = torch.randint(0, rows, (count - count // 2,), generator=generator)
    places = torch.cat([few, some])[torch.randperm(count, generator=generator)]
    table = torch.randn(rows, width, generator=generator)
    squares = torch.rand(rows, generator=generator)
    return table, squares, places, torch.randn(count, width, generator=generator)


@pytest.mark.parametrize("width", [1, 7, 16, 128])
@pytest.mark.parametrize(("rows", "count"), [(1, 10), (50, 0), (3000, 1), (5_000_000, 20_000)])
def test_each_row_moves_once_along_the_sum_of_its_gradients(
    rows: int, count: int, width: int
) -> None:
    # more than two digits of the sort, in little memory
    rows = min(rows, max(3000, 5_000_000 // width**2))
    table, squares, places, gradients = draw(rows, count, width)
    sums = torch.zeros(rows, width, dtype=torch.float64).index_add(0, places, gradients.double())
    new_squares = squares + sums.square().mean(1)
    moved = table - LR * sums / (new_squares.sqrt() + EPS)[:, None]

    library = find_library()
    assert library is not None
    actual = table.clone()
    update_rowwise_adagrad(library, actual, squares, places, gradients, lr=LR, eps=EPS)
    torch.testing.assert_close(squares.double(), new_squares, rtol=3e-5, atol=1e-6)
    torch.testing.assert_close(actual.double(), moved, rtol=1e-5, atol=1e-5)
    # rows that nothing points to are not touched
    others = torch.ones(rows, dtype=torch.bool).index_fill(0, places, False)
    assert torch.equal(actual[others], table[others])


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_changes_no_bit() -> None:
    library = find_library()
    assert library is not None
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        table, squares, places, gradients = draw(1000, 30_000, 16)
        update_rowwise_adagrad(library, table, squares, places, gradients, lr=LR, eps=EPS)
        results.append((table, squares))
    for table, squares in results[1:]:
        assert torch.equal(table, results[0][0])
        assert torch.equal(squares, results[0][1])


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_rows_are_gathered(count: int) -> None:
    library = find_library()
    assert library is not None
    table, _, places, _ = draw(500, count, 24)
    assert torch.equal(gather_rows(library, table, places), table[places])
