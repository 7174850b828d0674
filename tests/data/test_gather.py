import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker_data.columns import offsets_of
from ranker_data.gather import CompiledGather, Gather, NumpyGather, Ranges, Target, best_gather

RECORD = np.dtype(
    [("time", "i8"), ("truths", "f8", (2,)), ("item", "i4"), ("price", "f4"), ("nothing", "f4", 0)],
    align=True,
)


def records(count: int) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(0)
    result = np.zeros(count, RECORD)
    for name in ("time", "item"):
        result[name] = generator.integers(-(2**31), 2**31, count)
    result["price"] = generator.normal(size=count)
    result["truths"] = generator.normal(size=(count, 2))
    return result


def fill(gather: Gather, ranges: Ranges, count: int) -> list[np.ndarray[Any, Any]]:
    """Gathers all columns; times and items of a batch stand behind each other in one array."""
    ones = np.ones(len(ranges.begins), np.int64)
    entries = offsets_of(ones if ranges.lengths is None else ranges.lengths)[ranges.bounds]
    values = np.full(2 * entries[-1], -7, np.int64)
    sizes = np.diff(entries)
    outs = [
        np.full(entries[-1], -7, np.int32),
        np.full(entries[-1], -7, np.float32),
        np.full((entries[-1], 2), -7, np.float64),
        np.full((entries[-1], 0), -7, np.float32),
    ]
    targets = [
        Target("time", values, 2 * entries[:-1]),
        Target("item", values, 2 * entries[:-1] + sizes),
        *(Target(n, o) for n, o in zip(("item", "price", "truths", "nothing"), outs, strict=True)),
    ]
    gather(records(count), ranges, targets)
    return [values, *outs]


@settings(deadline=None, max_examples=100)
@given(data=st.data(), batches=st.integers(1, 4), ragged=st.booleans())
def test_the_compiled_form_is_the_definition(
    data: st.DataObject, batches: int, ragged: bool
) -> None:
    compiled = best_gather()
    assert isinstance(compiled, CompiledGather)
    # ranges shorter and longer than what is copied together
    longest = data.draw(st.sampled_from([3, 40, 400])) if ragged else 1
    sizes = data.draw(st.lists(st.integers(0, 20), min_size=batches, max_size=batches))
    bounds = np.cumsum([0, *sizes])
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    count = 1000
    begins = generator.integers(0, count - longest, bounds[-1])
    lengths = generator.integers(0, longest + 1, bounds[-1]) if ragged else None
    ranges = Ranges(begins, bounds, lengths)

    found, expected = fill(compiled, ranges, count), fill(NumpyGather(), ranges, count)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right)
    if lengths is not None:
        rows = [r for b, n in zip(begins, lengths, strict=True) for r in range(b, b + n)]
        np.testing.assert_array_equal(found[3], records(count)["truths"][rows])


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float32])
def test_plain_values_are_gathered_too(kind: type[np.generic]) -> None:
    values = np.arange(100).astype(kind)
    begins, lengths = np.array([90, 5, 5]), np.array([2, 0, 3])
    for gather in (best_gather(), NumpyGather()):
        out = np.zeros(5, np.float32 if kind is np.float32 else np.int64)
        gather(values, Ranges(begins, np.array([0, 1, 3]), lengths), [Target(None, out)])
        assert out.tolist() == [90, 91, 5, 6, 7]


@pytest.mark.parametrize("column", ["price", "truths"])
def test_a_target_of_another_type_is_refused(column: str) -> None:
    compiled = best_gather()
    with pytest.raises(AssertionError):
        compiled(
            records(4),
            Ranges(np.array([1]), np.array([0, 1])),
            [Target(column, np.zeros(1, np.int64))],
        )


def test_both_forms_travel_to_a_worker() -> None:
    ranges = Ranges(np.array([3, 1]), np.array([0, 2]))
    for gather in (best_gather(), NumpyGather()):
        copy = pickle.loads(pickle.dumps(gather))  # noqa: S301
        for left, right in zip(fill(copy, ranges, 5), fill(gather, ranges, 5), strict=True):
            np.testing.assert_array_equal(left, right)
