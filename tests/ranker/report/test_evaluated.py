from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ranker.report.evaluated import columns, evaluation_mask, task_rows
from ranker.report.predictions import Predictions

Make = Callable[..., Predictions]


def test_rows_need_a_label_and_a_weight(make_predictions: Make) -> None:
    predictions = make_predictions(200)
    predictions = replace(predictions, weight=(predictions.sample_id % 3).astype(np.float64))
    mask = evaluation_mask(predictions, "cvr")
    expected = (predictions.tasks["ctr"].label == 1) & (predictions.sample_id % 3 > 0)
    assert np.array_equal(mask, expected)
    rows = task_rows(predictions, "cvr", mask)
    assert rows.count == mask.sum()
    assert rows.positives == np.nansum(predictions.tasks["cvr"].label[mask])
    assert np.array_equal(rows.users, predictions.user[mask])
    assert rows.weights is not None
    assert rows.truth is None


def test_equal_weights_are_no_weights(make_predictions: Make) -> None:
    predictions = make_predictions(200)
    rows = task_rows(predictions, "ctr", evaluation_mask(predictions, "ctr"))
    assert rows.weights is None
    assert rows.truth is not None


def test_columns_are_weighted() -> None:
    values = [np.array([1.0, 2.0]), np.array([True, False])]
    assert columns(values, None).tolist() == [[1.0, 1.0], [2.0, 0.0]]
    assert columns(values, np.array([2.0, 3.0])).tolist() == [[2.0, 2.0], [6.0, 0.0]]
