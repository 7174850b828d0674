"""Every metric of a report as a point value and as a function of user weights."""

import math
from collections.abc import Callable, Collection
from functools import partial
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
from ranker.metrics.calibration import error_of_runs, expected_calibration_error, pcoc
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
from ranker.metrics.resample import Resampler
from ranker.metrics.roc import average_precision, average_precision_of_runs
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
    resampler: Resampler, parts: GroupAucs, names: Collection[str], *, num_bins: int = 20
) -> dict[str, ClusterStatistic]:
    """Metrics by name as functions of user weights, absent where the value is undefined.

    Besides the names: with `gauc` come `gauc_uniform` and `gauc_positive`, and where the true
    probability is known, `truth_auc` and `truth_gauc` are what it would reach.

    Args:
        resampler: of the rows.
        parts: the AUC of every group of the same rows.
        names: of metrics, those of `point_value`.
        num_bins: of the calibration error.
    """
    if resampler.rows.count == 0:
        return {}
    found = _of_sums(resampler, names) | _of_curves(resampler, names, num_bins)
    return found | (_of_groups(resampler, parts) if "gauc" in names else {})


def _of_sums(resampler: Resampler, names: Collection[str]) -> dict[str, ClusterStatistic]:
    """What needs a few sums per user only."""
    rows = resampler.rows
    labels = rows.labels.astype(np.float64)
    ones = np.ones(rows.count)
    losses = row_logloss(rows.logits, rows.labels)

    def of_sums(*values: Any, combine: Any = ratio) -> ClusterStatistic:
        stacked = columns(values, rows.weights)
        return sums_statistic(stacked, resampler.index, resampler.num_clusters, combine)

    builders: dict[str, Callable[[], ClusterStatistic]] = {
        "logloss": lambda: of_sums(losses, ones),
        "brier": lambda: of_sums((rows.probabilities.astype(np.float64) - labels) ** 2, ones),
    }
    if rows.positives:
        builders["pcoc"] = lambda: of_sums(rows.probabilities, labels)
    if one_class_reason(rows.count, rows.positives) is None:
        builders["normalized_entropy"] = lambda: of_sums(losses, labels, ones, combine=_entropy)
        builders["relative_information_gain"] = lambda: of_sums(
            losses, labels, ones, combine=lambda sums: 1 - _entropy(sums)
        )
    return {name: build() for name, build in builders.items() if name in names}


def _of_curves(
    resampler: Resampler, names: Collection[str], num_bins: int
) -> dict[str, ClusterStatistic]:
    """What needs the order of the rows."""
    rows, found = resampler.rows, {}
    if one_class_reason(rows.count, rows.positives) is not None:
        return {}
    if "auc" in names:
        found["auc"] = auc_statistic(rows.logits, rows.labels, resampler.index, rows.weights)
        if rows.truth is not None:
            found["truth_auc"] = auc_statistic(
                rows.truth, rows.labels, resampler.index, rows.weights
            )
    if "average_precision" in names:
        found["average_precision"] = resampler.of_logits(average_precision_of_runs)
    if "expected_calibration_error" in names:
        found["expected_calibration_error"] = resampler.of_probabilities(
            partial(error_of_runs, num_bins=num_bins)
        )
    return found


def _of_groups(resampler: Resampler, parts: GroupAucs) -> dict[str, ClusterStatistic]:
    rows, num_users = resampler.rows, resampler.num_clusters
    owners = group_users(parts, rows, resampler.index)
    if owners is None or not parts.defined.any():
        return {}
    weightings = {"": None, "_uniform": np.ones(len(owners)), "_positive": parts.positive}
    found = {
        f"gauc{name}": gauc_statistic(parts, owners, num_users, weights)
        for name, weights in weightings.items()
    }
    if rows.truth is not None:
        truth = group_aucs(rows.truth, rows.labels, rows.groups, rows.weights)
        found["truth_gauc"] = gauc_statistic(truth, owners, num_users)
    return found


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


def not_resampled(level: float) -> Interval:
    """The interval of a further metric that is no `ResampledMetric`."""
    reason = "this metric does not say how it follows from user weights"
    return Interval(low=None, high=None, level=level, method=METHOD, reason=reason)
