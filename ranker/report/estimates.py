"""Every metric of a report as a point value and as a function of user weights."""

import math
from typing import Any

import numpy as np

from ranker.metrics.auc import auc
from ranker.metrics.bootstrap import (
    METHOD,
    ClusterStatistic,
    auc_statistic,
    gauc_statistic,
    ratio,
    sums_statistic,
)
from ranker.metrics.calibration import expected_calibration_error, pcoc
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.gauc import Gauc, GroupAucs, group_aucs
from ranker.metrics.logloss import (
    binary_entropy,
    brier,
    logloss,
    normalized_entropy,
    relative_information_gain,
    row_logloss,
)
from ranker.metrics.roc import average_precision
from ranker.metrics.rows import Float64Array, IntArray
from ranker.metrics.value import Interval, MetricValue, one_class_reason
from ranker.report.evaluated import columns


def point_value(
    name: str, rows: EvaluationRows, grouped: Gauc, *, num_bins: int = 20
) -> MetricValue:
    """A metric by its name in the report; `grouped` is the GAUC of the same rows."""
    if name == "gauc":
        return grouped.impressions
    of_logits = {
        "auc": auc,
        "logloss": logloss,
        "normalized_entropy": normalized_entropy,
        "relative_information_gain": relative_information_gain,
        "average_precision": average_precision,
    }
    of_probabilities = {"pcoc": pcoc, "brier": brier}
    if name in of_logits:
        return of_logits[name](rows.logits, rows.labels, rows.weights)
    if name in of_probabilities:
        return of_probabilities[name](rows.probabilities, rows.labels, rows.weights)
    assert name == "expected_calibration_error"
    return expected_calibration_error(
        rows.probabilities, rows.labels, rows.weights, num_bins=num_bins
    )


def build_statistics(
    rows: EvaluationRows, parts: GroupAucs, index: IntArray, num_users: int
) -> dict[str, ClusterStatistic]:
    """Metrics by name as functions of user weights, absent where the value is undefined.

    `truth_auc` and `truth_gauc` are those of the true probability, where it is known.
    """
    if rows.count == 0:
        return {}
    labels = rows.labels.astype(np.float64)
    ones = np.ones(rows.count)
    losses = row_logloss(rows.logits, rows.labels)
    errors = (rows.probabilities.astype(np.float64) - labels) ** 2

    def of_sums(*values: Any, combine: Any = ratio) -> ClusterStatistic:
        return sums_statistic(columns(values, rows.weights), index, num_users, combine)

    statistics = {"logloss": of_sums(losses, ones), "brier": of_sums(errors, ones)}
    if rows.positives:
        statistics["pcoc"] = of_sums(rows.probabilities, labels)
    if one_class_reason(rows.count, rows.positives) is None:
        statistics["auc"] = auc_statistic(rows.logits, rows.labels, index, rows.weights)
        statistics["normalized_entropy"] = of_sums(losses, labels, ones, combine=_entropy)
        statistics["relative_information_gain"] = of_sums(
            losses, labels, ones, combine=lambda sums: 1 - _entropy(sums)
        )
        if rows.truth is not None:
            statistics["truth_auc"] = auc_statistic(rows.truth, rows.labels, index, rows.weights)
    owners = group_users(parts, rows, index)
    if parts.defined.any() and owners is not None:
        statistics["gauc"] = gauc_statistic(parts, owners, num_users)
        if rows.truth is not None:
            truth = group_aucs(rows.truth, rows.labels, rows.groups, rows.weights)
            statistics["truth_gauc"] = gauc_statistic(truth, owners, num_users)
    return statistics


def _entropy(sums: Float64Array) -> float:
    """Normalised entropy from the sums of losses, labels and weights."""
    loss, positive, total = (float(value) for value in sums)
    if not 0 < positive < total:
        return math.nan
    return loss / total / binary_entropy(positive / total)


def group_users(parts: GroupAucs, rows: EvaluationRows, index: IntArray) -> IntArray | None:
    """The user of every group [G], or None if a group has rows of several users."""
    group = np.searchsorted(parts.groups, rows.groups)
    users = np.empty(len(parts.groups), dtype=np.int64)
    users[group] = index
    return users if bool((users[group] == index).all()) else None


def not_nested(level: float) -> Interval:
    """The interval of a GAUC for which `group_users` found none."""
    reason = "a group holds rows of several users, so resampling users would split it"
    return Interval(low=None, high=None, level=level, method=METHOD, reason=reason)
