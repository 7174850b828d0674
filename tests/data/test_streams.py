import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker_data.streams import (
    StreamPlan,
    default_num_streams,
    prefix_counts,
    shuffle_rows,
    streams_of,
)


def merged_order(sizes: list[int]) -> list[int]:
    """The literal definition: the stream of each row, sorted by relative position, stream."""
    rows = [((i + 0.5) / n, s) for s, n in enumerate(sizes) for i in range(n)]
    return [s for _, s in sorted(rows)]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_prefix_counts_equal_the_sorted_order(sizes: list[int]) -> None:
    order = merged_order(sizes)
    expected = [
        np.bincount(order[:length], minlength=len(sizes)) for length in range(len(order) + 1)
    ]
    found = prefix_counts(np.array(sizes), np.arange(len(order) + 1))
    np.testing.assert_array_equal(found, expected)


@given(
    st.lists(st.integers(0, 200), min_size=4, max_size=9).filter(lambda sizes: sum(sizes) >= 16),
    st.booleans(),
)
def test_a_plan_visits_each_row_once_in_steps_of_a_batch(sizes: list[int], drop_last: bool) -> None:
    plan = StreamPlan(part_sizes=tuple(sizes), num_streams=4, batch_size=16, drop_last=drop_last)
    positions = plan.positions(0, plan.num_steps)
    steps = np.diff(positions, axis=0)
    assert (steps >= 0).all()
    if drop_last:
        assert (steps.sum(1) == 16).all()
        assert plan.num_dropped_rows == sum(sizes) - positions[-1].sum() < 16
    else:
        assert (steps.sum(1) <= 16).all()
        np.testing.assert_array_equal(positions[-1], plan.stream_sizes())


@pytest.mark.parametrize(("num_parts", "expected"), [(1, 1), (3, 2), (4, 4), (15, 8), (64, 16)])
def test_the_default_number_of_streams_depends_on_the_parts_alone(
    num_parts: int, expected: int
) -> None:
    assert default_num_streams(num_parts) == expected


def test_streams_of_deals_all_streams_and_refuses_an_uneven_deal() -> None:
    assert sorted(streams_of(8, 0, 2) + streams_of(8, 1, 2)) == list(range(8))
    with pytest.raises(ValueError, match=r"loader\.num_streams \(8\) must be a multiple"):
        streams_of(8, 0, 3)


@given(st.lists(st.integers(0, 12), max_size=60).map(sorted), st.integers(1, 5), st.integers(0, 3))
def test_shuffle_rows_keeps_a_users_chunk_together(
    users: list[int], chunk: int, epoch: int
) -> None:
    user = np.array(users, dtype=np.int64)
    order = shuffle_rows(user, samples_per_user=chunk, seed=3, epoch=epoch, part=1)
    assert sorted(order) == list(range(len(users)))
    again = shuffle_rows(user, samples_per_user=chunk, seed=3, epoch=epoch, part=1)
    np.testing.assert_array_equal(order, again)
    # as many runs of one user as its samples need chunks, or fewer where chunks happen to meet
    runs = np.count_nonzero(np.diff(user[order])) + (len(users) > 0)
    assert runs <= sum(-(-count // chunk) for count in np.bincount(user) if count)


def test_shuffle_rows_changes_with_the_epoch() -> None:
    user = np.arange(50)
    orders = [
        shuffle_rows(user, samples_per_user=1, seed=0, epoch=epoch, part=0).tolist()
        for epoch in (0, 1)
    ]
    assert orders[0] != orders[1]
