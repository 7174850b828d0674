from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ranker.report.derived import add_slices, field_of, trained_field_of, unseen_names
from ranker.report.predictions import Predictions
from ranker_data.seen import SeenIds

Make = Callable[..., Predictions]


def test_which_field_a_slice_needs() -> None:
    assert field_of("category") == "category"
    assert field_of("count.item_id") == "item_id"
    assert field_of("train_count.item_id") == field_of("age.item_id") == "item_id"
    assert trained_field_of("age.item_id") == trained_field_of("train_count.item_id") == "item_id"
    assert trained_field_of("age") is trained_field_of("count.age") is None
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


def test_what_training_saw(make_predictions: Make) -> None:
    predictions = replace(make_predictions(6), time=np.array([0, 1, 2, 3, 4, 5]) * 3600 + 10)
    item = np.array([7, 7, 8, 8, 9, 7])
    seen = SeenIds(ids=np.array([7, 8]), counts=np.array([4, 0]), first=np.array([0, 3 * 3600]))
    names = ["train_count.item", "age.item"]
    found = add_slices(predictions, names, fields={"item": item}, seen={"item": seen}).slices
    assert found["train_count.item"].tolist() == [4, 4, 0, 0, 0, 4]
    assert found["age.item"].tolist() == [0, 1, -1, 0, -1, 5]
    assert unseen_names(names) == {
        "train_count.item": {0: "not in training"},
        "age.item": {-1: "not seen before"},
    }
