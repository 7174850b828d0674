"""Gain and lift: how many of the positives are in the best scored fraction of the rows."""

from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from ranker.metrics.bootstrap import ClusterStatistic
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.resample import Resampler
from ranker.metrics.runs import ScoreRuns, score_runs
from ranker.metrics.value import MetricValue, one_class_reason


def gain(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, *, fraction: float
) -> MetricValue:
    """Share of all positives among the top `fraction` of the rows.

    Rows tied at the cut are taken in part, so a constant score gains exactly `fraction`.

    Raises:
        ValueError: fraction is not in (0, 1], or as `check_rows`.
    """
    _check_fraction(fraction)
    return gain_of_runs(score_runs(scores, labels, weights), fraction=fraction)


def gain_of_runs(runs: ScoreRuns, *, fraction: float) -> MetricValue:
    """The same for rows that are sorted already."""
    reason = one_class_reason(runs.rows, runs.positives)
    if reason is not None:
        return MetricValue(value=None, rows=runs.rows, positives=runs.positives, reason=reason)
    mass = (runs.positive + runs.negative)[::-1]
    taken = np.clip((fraction * mass.sum() - (np.cumsum(mass) - mass)) / mass, 0.0, 1.0)
    value = float(taken @ runs.positive[::-1] / runs.positive.sum())
    return MetricValue(value=value, rows=runs.rows, positives=runs.positives)


def lift(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, *, fraction: float
) -> MetricValue:
    """Gain over fraction: how many times the mean rate the top `fraction` of the rows has."""
    _check_fraction(fraction)
    return lift_of_runs(score_runs(scores, labels, weights), fraction=fraction)


def lift_of_runs(runs: ScoreRuns, *, fraction: float) -> MetricValue:
    """The same for rows that are sorted already."""
    gained = gain_of_runs(runs, fraction=fraction)
    if gained.value is None:
        return gained
    return MetricValue(value=gained.value / fraction, rows=gained.rows, positives=gained.positives)


class Lift:
    """`lift` of an evaluation."""

    def __init__(self, *, fraction: float) -> None:
        _check_fraction(fraction)
        self.fraction = fraction

    def __call__(self, rows: EvaluationRows) -> MetricValue:
        """Lift on these rows."""
        return lift(rows.logits, rows.labels, rows.weights, fraction=self.fraction)

    def statistic(self, resampler: Resampler) -> ClusterStatistic:
        """Lift as a function of user weights."""
        return resampler.of_logits(partial(lift_of_runs, fraction=self.fraction))


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; give a share of the rows in (0, 1]")
