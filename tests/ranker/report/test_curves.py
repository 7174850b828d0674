from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ranker.metrics.evaluation import EvaluationRows
from ranker.report.curves import MAX_ROC_POINTS, NUM_HISTOGRAM_BINS, build_curves
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.predictions import Predictions

Make = Callable[..., Predictions]


def ctr_rows(predictions: Predictions) -> EvaluationRows:
    return task_rows(predictions, "ctr", evaluation_mask(predictions, "ctr"))


@pytest.mark.parametrize("weighted", [False, True])
def test_curves_are_thin(make_predictions: Make, weighted: bool) -> None:
    curves = build_curves(ctr_rows(make_predictions(weighted=weighted)), num_bins=10)
    assert 100 < len(curves["roc"]["true_positive_rate"]) <= MAX_ROC_POINTS
    assert len(curves["calibration"]["predicted"]) == 10
    histogram = curves["histogram"]
    assert len(histogram["edges"]) == NUM_HISTOGRAM_BINS + 1
    for name in ("positive", "negative"):
        assert sum(histogram[name]) == pytest.approx(1.0, abs=1e-4)


def test_one_class_has_no_roc_and_one_histogram(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    curves = build_curves(replace(rows, labels=np.zeros(rows.count, dtype=bool)), num_bins=5)
    assert curves["roc"] is None
    assert curves["histogram"]["positive"] is None
    assert curves["histogram"]["negative"] is not None


def test_constant_scores_have_one_bar(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    constant = replace(rows, logits=np.full_like(rows.logits, 2.0))
    histogram = build_curves(constant, num_bins=5)["histogram"]
    assert sorted(histogram["negative"])[-1] == 1.0


def test_outliers_do_not_stretch_the_histogram(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    logits = rows.logits.copy()
    logits[0] = 1e6
    assert build_curves(replace(rows, logits=logits), num_bins=5)["histogram"]["edges"][-1] < 100


def test_no_rows_have_no_curves(make_predictions: Make) -> None:
    predictions = make_predictions()
    rows = task_rows(predictions, "ctr", np.zeros(predictions.rows, dtype=bool))
    assert set(build_curves(rows, num_bins=5).values()) == {None}
