from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ranker.metrics.bootstrap import cluster_index
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.gauc import group_aucs, summarize
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
    statistics = build_statistics(rows, parts, index, num_users)
    compared = set(statistics) & set(ALL_METRICS)
    assert len(compared) == 7
    for name in compared:
        expected = point_value(name, rows, summarize(parts)).value
        assert statistics[name](np.ones(num_users)) == pytest.approx(expected, abs=1e-9)


def test_what_is_undefined_has_no_statistic(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    index, num_users = cluster_index(rows.users)
    for labels, expected in (
        (np.zeros(rows.count, dtype=bool), {"logloss", "brier"}),
        (np.ones(rows.count, dtype=bool), {"logloss", "brier", "pcoc"}),
    ):
        one_class = replace(rows, labels=labels)
        parts = group_aucs(rows.logits, labels, rows.groups)
        assert set(build_statistics(one_class, parts, index, num_users)) == expected


def test_a_resample_without_positives_has_no_entropy(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    one = replace(rows, labels=np.arange(rows.count) == 0)
    parts = group_aucs(one.logits, one.labels, one.groups)
    index, num_users = cluster_index(one.users)
    statistic = build_statistics(one, parts, index, num_users)["normalized_entropy"]
    without = np.ones(num_users)
    without[index[0]] = 0.0
    assert np.isnan(statistic(without))
