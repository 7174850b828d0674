from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ranker.report.derived import add_slices, field_of
from ranker.report.predictions import Predictions

Make = Callable[..., Predictions]


def test_which_field_a_slice_needs() -> None:
    assert field_of("category") == "category"
    assert field_of("count.item_id") == "item_id"
    assert field_of("hour") is None
    assert field_of("user_activity") is None


def test_counts_hours_and_fields(make_predictions: Make) -> None:
    predictions = make_predictions(60)
    item = predictions.sample_id % 7
    found = add_slices(
        replace(predictions, time=predictions.sample_id * 1_800_000),
        ["user_activity", "hour", "item", "count.item"],
        fields={"item": item},
        time_unit="ms",
    ).slices
    assert list(found) == ["history_length", "user_activity", "hour", "item", "count.item"]
    for row in range(60):
        assert found["user_activity"][row] == (predictions.user == predictions.user[row]).sum()
        assert found["hour"][row] == row // 2 % 24
        assert found["count.item"][row] == (item == item[row]).sum()
    np.testing.assert_array_equal(found["item"], item)
