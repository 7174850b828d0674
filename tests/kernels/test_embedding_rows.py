import ctypes
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ranker_kernels import embedding_rows
from ranker_kernels.embedding_rows import Keys, are_in_bounds, find_library

LR, EPS = 0.1, 1e-4


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def one_key(table: Tensor, places: Tensor) -> Keys:
    return Keys(begins=[0], ends=[len(places)], first_rows=[0], sizes=[len(table)])


def gather_rows(library: ctypes.CDLL, table: Tensor, places: Tensor) -> Tensor:
    (found,) = embedding_rows.gather_rows(library, table, places, one_key(table, places))
    return found


def update_rowwise_adagrad(
    library: ctypes.CDLL,
    table: Tensor,
    squares: Tensor,
    places: Tensor,
    gradients: Tensor,
    *,
    lr: float,
    eps: float,
) -> None:
    embedding_rows.update_rowwise_adagrad(
        *(library, table, squares, places, one_key(table, places), [gradients]), lr=lr, eps=eps
    )


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
    # in little memory
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
@pytest.mark.parametrize("width", [5, 16, 200])
@pytest.mark.parametrize(("rows", "count"), [(1000, 30_000), (90_000, 70_001)])
def test_the_number_of_threads_changes_no_bit(rows: int, count: int, width: int) -> None:
    library = find_library()
    assert library is not None
    results = []
    for threads in (1, 2, 3, 16):
        torch.set_num_threads(threads)
        table, squares, places, gradients = draw(rows, count, width)
        update_rowwise_adagrad(library, table, squares, places, gradients, lr=LR, eps=EPS)
        results.append((table, squares, gather_rows(library, table, places)))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("row", [0, 2**24 + 5])
def test_rows_that_are_all_the_same(row: int, threads: int) -> None:
    library = find_library()
    assert library is not None
    torch.set_num_threads(threads)
    # only what is touched takes memory
    table, squares = torch.zeros(2**24 + 6, 2), torch.zeros(2**24 + 6)
    places = torch.full((40_000,), row)
    gradients = torch.full((40_000, 2), 0.25)
    update_rowwise_adagrad(library, table, squares, places, gradients, lr=1.0, eps=0.0)
    assert squares[row] == 1e8
    assert table[row].tolist() == [-1.0, -1.0]
    assert int(squares.count_nonzero()) == 1
    assert torch.equal(gather_rows(library, table, places), torch.full((40_000, 2), -1.0))


@pytest.mark.parametrize("width", [3, 16, 24])
@pytest.mark.parametrize("count", [0, 1, 1000, 50_000])
def test_rows_are_gathered(count: int, width: int) -> None:
    library = find_library()
    assert library is not None
    table, _, places, _ = draw(500, count, width)
    assert torch.equal(gather_rows(library, table, places), table[places])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("threads", [1, 2])
def test_several_keys_with_tables_of_their_own(threads: int) -> None:
    library = find_library()
    assert library is not None
    torch.set_num_threads(threads)
    width, generator = 6, torch.Generator().manual_seed(7)
    # tables of 5,000, 10 and 300 rows; the second has two keys, and the third key no ids
    counts, first_rows, sizes = [20_000, 9000, 0, 5], [0, 5000, 5010, 5000], [5000, 10, 300, 10]
    ids = torch.cat(
        [
            torch.randint(0, size, (count,), generator=generator)
            for size, count in zip(sizes, counts, strict=True)
        ]
    )
    ends = torch.tensor(counts).cumsum(0)
    keys = Keys((ends - torch.tensor(counts)).tolist(), ends.tolist(), first_rows, sizes)
    rows = ids + torch.tensor(first_rows).repeat_interleave(torch.tensor(counts))
    table, squares = torch.randn(5310, width, generator=generator), torch.rand(5310)
    found = embedding_rows.gather_rows(library, table, ids, keys)
    assert torch.equal(torch.cat(found), table[rows])
    assert [len(values) for values in found] == counts

    # one is a part of a wider tensor, one is transposed, and one key has none
    given = torch.randn(len(ids), width, generator=generator)
    pieces = torch.split(given, counts)
    wide = torch.cat([pieces[0], pieces[0]], dim=1)[:, width:]
    gradients = [wide, pieces[1].t().contiguous().t(), pieces[2], None]
    expected, expected_squares = table.clone(), squares.clone()
    update_rowwise_adagrad(
        *(library, expected, expected_squares, rows[:-5], given[:-5]), lr=LR, eps=EPS
    )
    embedding_rows.update_rowwise_adagrad(
        *(library, table, squares, ids, keys, gradients), lr=LR, eps=EPS
    )
    assert torch.equal(table, expected)
    assert torch.equal(squares, expected_squares)


@pytest.mark.parametrize(("bad", "fits"), [(None, True), (-1, False), (10, False), (9, True)])
def test_ids_that_no_table_has_are_found(bad: int | None, fits: bool) -> None:
    library = find_library()
    assert library is not None
    ids = torch.tensor([4999, 0, 3, 9, 0, 5])
    if bad is not None:
        ids[3] = bad
    # the last id belongs to nobody
    keys = Keys(begins=[0, 2, 5], ends=[2, 5, 5], first_rows=[0, 5000, 0], sizes=[5000, 10, 1])
    assert are_in_bounds(library, ids, keys) == fits


@pytest.mark.parametrize("width", [1, 7, 16])
@pytest.mark.parametrize("count", [0, 1, 3, 1000, 40_000])
def test_rows_of_keys_that_follow_each_other_lie_side_by_side(count: int, width: int) -> None:
    library = find_library()
    assert library is not None
    table = torch.randn(300, width)
    ids = torch.randint(0, 100, (3 * count + 5,))
    # not in the order of their ids; the last has five ids
    keys = Keys(
        begins=[count, 0, 2 * count, 3 * count],
        ends=[2 * count, count, 3 * count, 3 * count + 5],
        first_rows=[100, 0, 200, 0],
        sizes=[100, 100, 100, 300],
    )
    found = embedding_rows.gather_rows(library, table, ids, keys)
    for rows, begin, end, first in zip(found, keys.begins, keys.ends, keys.first_rows, strict=True):
        torch.testing.assert_close(rows, table[first + ids[begin:end]], rtol=0, atol=0)
    second, first_key, third, last = found
    if count not in (0, 5):
        assert [rows.stride(0) for rows in found] == [3 * width] * 3 + [width]
        begins = [rows.storage_offset() for rows in (first_key, second, third)]
        assert begins == [0, width, 2 * width]
        assert first_key.untyped_storage().data_ptr() == third.untyped_storage().data_ptr()
        assert last.untyped_storage().data_ptr() != third.untyped_storage().data_ptr()
