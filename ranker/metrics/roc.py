"""ROC and precision-recall curves, average precision and partial AUC, all from one sort."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from ranker.metrics.bootstrap import ClusterStatistic
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.resample import Resampler
from ranker.metrics.rows import Float64Array
from ranker.metrics.runs import ScoreRuns, score_runs
from ranker.metrics.value import MetricValue, one_class_reason


@dataclass(frozen=True, kw_only=True)
class RocCurve:
    """Vertices of the exact ROC curve from (0, 0) to (1, 1)."""

    false_positive_rate: Float64Array  # [V]
    true_positive_rate: Float64Array  # [V]
    threshold: Float64Array  # [V] rows with a score >= threshold are called positive; inf at (0, 0)


def roc_curve(runs: ScoreRuns, *, max_points: int = 400) -> RocCurve:
    """ROC vertices, every one of them exact, thinned evenly along the curve to about `max_points`.

    Raises:
        ValueError: a class is missing, or max_points is below 2.
    """
    reason = one_class_reason(runs.rows, runs.positives)
    if reason is not None:
        raise ValueError(f"a ROC curve needs both classes: {reason}")
    if max_points < 2:
        raise ValueError(f"max_points is {max_points}; a curve needs at least its 2 ends")
    hits = np.concatenate([[0.0], np.cumsum(runs.positive[::-1])])
    alarms = np.concatenate([[0.0], np.cumsum(runs.negative[::-1])])
    hits, alarms = hits / hits[-1], alarms / alarms[-1]
    threshold = np.concatenate([[np.inf], runs.scores[::-1]])
    if len(hits) > max_points:
        # hits + alarms grows along the curve, from 0 to 2
        marks = np.linspace(0.0, hits[-1] + alarms[-1], max_points)
        kept = np.unique(np.searchsorted(hits + alarms, marks))
        hits, alarms, threshold = hits[kept], alarms[kept], threshold[kept]
    return RocCurve(false_positive_rate=alarms, true_positive_rate=hits, threshold=threshold)


@dataclass(frozen=True, kw_only=True)
class PrecisionRecallCurve:
    """Precision at every recall that a threshold gives, by ascending recall."""

    recall: Float64Array  # [V] the last is 1
    precision: Float64Array  # [V] the last is the positive rate


def precision_recall_curve(runs: ScoreRuns, *, max_points: int = 400) -> PrecisionRecallCurve:
    """One exact point per distinct score, thinned evenly by recall to about `max_points`.

    Raises:
        ValueError: a class is missing, or max_points is below 2.
    """
    reason = one_class_reason(runs.rows, runs.positives)
    if reason is not None:
        raise ValueError(f"a precision-recall curve needs both classes: {reason}")
    if max_points < 2:
        raise ValueError(f"max_points is {max_points}; a curve needs at least its 2 ends")
    hits = np.cumsum(runs.positive[::-1])
    precision = hits / (hits + np.cumsum(runs.negative[::-1]))
    recall = hits / hits[-1]
    if len(hits) > max_points:
        marks = np.linspace(recall[0], 1.0, max_points - 1)
        kept = np.append(np.searchsorted(recall, marks), len(recall) - 1)
        kept = np.unique(np.minimum(kept, len(recall) - 1))
        recall, precision = recall[kept], precision[kept]
    return PrecisionRecallCurve(recall=recall, precision=precision)


def average_precision(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> MetricValue:
    """PR-AUC as sum_k (recall_k - recall_{k-1}) precision_k over the distinct scores, descending.

    A random order scores the positive rate. No interpolation: the linear one is too optimistic
    (Davis & Goadrich, ICML 2006).
    """
    return average_precision_of_runs(score_runs(scores, labels, weights))


def average_precision_of_runs(runs: ScoreRuns) -> MetricValue:
    """The same for rows that are sorted already."""
    reason = one_class_reason(runs.rows, runs.positives)
    if reason is not None:
        return MetricValue(value=None, rows=runs.rows, positives=runs.positives, reason=reason)
    positive = runs.positive[::-1]
    hits = np.cumsum(positive)
    precision = hits / (hits + np.cumsum(runs.negative[::-1]))
    value = float(positive @ precision / hits[-1])
    return MetricValue(value=value, rows=runs.rows, positives=runs.positives)


def partial_auc(
    scores: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    max_fpr: float,
    positive_fraction: float = 1.0,
) -> MetricValue:
    """AUC on the hardest rows only, scaled to [0, 1] (OPAUC; TPAUC with positive_fraction < 1).

    Compares the `max_fpr` highest scored negatives with the `positive_fraction` lowest scored
    positives: the region FPR <= max_fpr, TPR >= 1 - positive_fraction (Shao et al., "Asymptotically
    unbiased instance-wise regularized partial AUC optimization", NeurIPS 2022). Unweighted, the
    counts are floor(fraction n), at least 1. Rows tied at the cut are taken in part, which equals
    the mean over all ways to break the tie. This is not scikit-learn's `max_fpr`, which returns
    McClish's standardisation; the raw area is max_fpr * OPAUC.

    Raises:
        ValueError: a fraction is not in (0, 1], or as `check_rows`.
    """
    _check_fractions(max_fpr, positive_fraction)
    runs = score_runs(scores, labels, weights)
    return partial_auc_of_runs(runs, max_fpr=max_fpr, positive_fraction=positive_fraction)


def partial_auc_of_runs(
    runs: ScoreRuns, *, max_fpr: float, positive_fraction: float
) -> MetricValue:
    """The same for rows that are sorted already."""
    reason = one_class_reason(runs.rows, runs.positives)
    if reason is not None:
        return MetricValue(value=None, rows=runs.rows, positives=runs.positives, reason=reason)
    negative = _take(runs.negative[::-1], max_fpr, whole=not runs.weighted)[::-1]
    positive = _take(runs.positive, positive_fraction, whole=not runs.weighted)
    below = np.cumsum(negative) - negative
    wins = positive @ (below + negative / 2)
    value = float(wins / (positive.sum() * negative.sum()))
    return MetricValue(value=value, rows=runs.rows, positives=runs.positives)


class PartialAuc:
    """`partial_auc` of an evaluation."""

    def __init__(self, *, max_fpr: float, positive_fraction: float = 1.0) -> None:
        _check_fractions(max_fpr, positive_fraction)
        self.max_fpr = max_fpr
        self.positive_fraction = positive_fraction

    def __call__(self, rows: EvaluationRows) -> MetricValue:
        """Partial AUC on these rows."""
        return partial_auc(
            rows.logits,
            rows.labels,
            rows.weights,
            max_fpr=self.max_fpr,
            positive_fraction=self.positive_fraction,
        )

    def statistic(self, resampler: Resampler) -> ClusterStatistic:
        """Partial AUC as a function of user weights."""
        return resampler.of_logits(
            partial(
                partial_auc_of_runs,
                max_fpr=self.max_fpr,
                positive_fraction=self.positive_fraction,
            )
        )


def mcclish_auc(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, *, max_fpr: float
) -> MetricValue:
    """Area under the ROC curve up to `max_fpr`, standardised to 0.5 for a random order, 1 at best.

    0.5 (1 + (area - low) / (max_fpr - low)) with low = max_fpr^2 / 2, the area of a random order
    (McClish, "Analyzing a portion of the ROC curve", 1989): scikit-learn's roc_auc_score(max_fpr).
    The curve is interpolated linearly at the cut.

    Raises:
        ValueError: max_fpr is not in (0, 1], or as `check_rows`.
    """
    _check_fractions(max_fpr, 1.0)
    return mcclish_auc_of_runs(score_runs(scores, labels, weights), max_fpr=max_fpr)


def mcclish_auc_of_runs(runs: ScoreRuns, *, max_fpr: float) -> MetricValue:
    """The same for rows that are sorted already."""
    reason = one_class_reason(runs.rows, runs.positives)
    if reason is not None:
        return MetricValue(value=None, rows=runs.rows, positives=runs.positives, reason=reason)
    hits = np.concatenate([[0.0], np.cumsum(runs.positive[::-1])])
    alarms = np.concatenate([[0.0], np.cumsum(runs.negative[::-1])])
    hits, alarms = hits / hits[-1], alarms / alarms[-1]
    inside = alarms <= max_fpr
    beyond = np.argmin(inside) if not inside.all() else None
    x, y = alarms[inside], hits[inside]
    if beyond is not None and x[-1] < max_fpr:
        left, right = beyond - 1, beyond
        share = (max_fpr - alarms[left]) / (alarms[right] - alarms[left])
        x = np.append(x, max_fpr)
        y = np.append(y, hits[left] + share * (hits[right] - hits[left]))
    area, low = float(np.trapezoid(y, x)), max_fpr**2 / 2
    value = 0.5 * (1 + (area - low) / (max_fpr - low))
    return MetricValue(value=value, rows=runs.rows, positives=runs.positives)


class McClishAuc:
    """`mcclish_auc` of an evaluation."""

    def __init__(self, *, max_fpr: float) -> None:
        _check_fractions(max_fpr, 1.0)
        self.max_fpr = max_fpr

    def __call__(self, rows: EvaluationRows) -> MetricValue:
        """Standardised partial AUC on these rows."""
        return mcclish_auc(rows.logits, rows.labels, rows.weights, max_fpr=self.max_fpr)

    def statistic(self, resampler: Resampler) -> ClusterStatistic:
        """Standardised partial AUC as a function of user weights."""
        return resampler.of_logits(partial(mcclish_auc_of_runs, max_fpr=self.max_fpr))


def _check_fractions(max_fpr: float, positive_fraction: float) -> None:
    for name, fraction in (("max_fpr", max_fpr), ("positive_fraction", positive_fraction)):
        if not 0 < fraction <= 1:
            raise ValueError(f"{name} is {fraction}; give a fraction in (0, 1]")


def _take(weight: Float64Array, fraction: float, *, whole: bool) -> Float64Array:
    """The first `fraction` of the weight [R]; whole rows if unweighted, and at least one."""
    mass = fraction * weight.sum()
    if whole:
        # the nudge keeps floor(0.3 * 10) at 3
        mass = max(math.floor(mass * (1 + 1e-12)), 1)
    return np.clip(mass - (np.cumsum(weight) - weight), 0.0, weight)
