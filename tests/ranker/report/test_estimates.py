from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ranker.metrics.bootstrap import cluster_index
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.gauc import group_aucs, summarize
from ranker.metrics.resample import Resampler
from ranker.report.estimates import build_statistics, point_value
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.measure import ALL_METRICS
from ranker.report.predictions import Predictions

Make = Callable[..., Predictions]


def ctr_rows(predictions: Predictions) -> EvaluationRows:
    return task_rows(predictions, "ctr", evaluation_mask(predictions, "ctr"))


@pytest.mark.parametrize("weighted", [False, True])
def test_statistics_at_equal_weights_are_the_point_values(
    make_predictions: Make, weighted: bool
) -> None:
    rows = ctr_rows(make_predictions(weighted=weighted))
    parts = group_aucs(rows.logits, rows.labels, rows.groups, rows.weights)
    index, num_users = cluster_index(rows.users)
    statistics = build_statistics(Resampler(rows, index, num_users), parts, ALL_METRICS)
    assert set(ALL_METRICS) < set(statistics)
    grouped = summarize(parts)
    expected = {name: point_value(name, rows, grouped).value for name in ALL_METRICS}
    expected |= {"gauc_uniform": grouped.uniform.value, "gauc_positive": grouped.positive.value}
    for name, value in expected.items():
        assert statistics[name](np.ones(num_users)) == pytest.approx(value, abs=1e-9), name


def test_a_user_drawn_twice_counts_twice(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions(weighted=True))
    index, num_users = cluster_index(rows.users)
    drawn = np.random.default_rng(5).integers(0, 3, num_users).astype(np.float64)
    assert rows.weights is not None
    kept = drawn[index] > 0
    heavier = replace(
        rows,
        truth=None,
        weights=(rows.weights * drawn[index])[kept],
        **{
            name: getattr(rows, name)[kept]
            for name in ("labels", "logits", "probabilities", "users", "groups", "requests")
        },
    )
    parts = group_aucs(rows.logits, rows.labels, rows.groups, rows.weights)
    statistics = build_statistics(Resampler(rows, index, num_users), parts, ALL_METRICS)
    grouped = summarize(group_aucs(heavier.logits, heavier.labels, heavier.groups, heavier.weights))
    for name in ALL_METRICS:
        value = point_value(name, heavier, grouped).value
        assert statistics[name](drawn) == pytest.approx(value, abs=1e-9), name


def test_what_is_undefined_has_no_statistic(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    index, num_users = cluster_index(rows.users)
    for labels, expected in (
        (np.zeros(rows.count, dtype=bool), {"logloss", "brier"}),
        (np.ones(rows.count, dtype=bool), {"logloss", "brier", "pcoc"}),
    ):
        one_class = replace(rows, labels=labels)
        parts = group_aucs(rows.logits, labels, rows.groups)
        resampler = Resampler(one_class, index, num_users)
        assert set(build_statistics(resampler, parts, ALL_METRICS)) == expected


def test_a_resample_without_positives_has_no_entropy(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    one = replace(rows, labels=np.arange(rows.count) == 0)
    parts = group_aucs(one.logits, one.labels, one.groups)
    index, num_users = cluster_index(one.users)
    names = ("normalized_entropy", "average_precision", "expected_calibration_error")
    statistics = build_statistics(Resampler(one, index, num_users), parts, names)
    without = np.ones(num_users)
    without[index[0]] = 0.0
    assert all(np.isnan(statistics[name](without)) for name in names)
