"""Calibration: do predicted probabilities add up to what happened, overall and along the score?"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from ranker.metrics.logloss import check_probabilities
from ranker.metrics.rows import Float64Array, IntArray, check_rows
from ranker.metrics.runs import ScoreRuns, collapse
from ranker.metrics.value import MetricValue


@dataclass(frozen=True, kw_only=True)
class CalibrationCurve:
    """Mean prediction and observed rate in B bins of about equal weight, ascending."""

    predicted: Float64Array  # [B]
    observed: Float64Array  # [B]
    weight: Float64Array  # [B] share of the total weight
    counts: IntArray  # [B] rows
    # Wilson 95 % interval of the observed rate for independent rows [B]; NaN if rows are weighted
    low: Float64Array
    high: Float64Array


def pcoc(
    probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> MetricValue:
    """Predicted over observed clicks, sum p / sum y; 1 is ideal, above 1 promises too much.

    Some teams quote the inverse (COPC).
    """
    check_probabilities(probabilities)
    rows = check_rows(probabilities, labels, weights)
    if rows.positives == 0:
        reason = f"no positives in {rows.count:,} rows" if rows.count else "no rows"
        return MetricValue(value=None, rows=rows.count, positives=0, reason=reason)
    weight = np.ones(rows.count) if rows.weights is None else rows.weights
    value = float(weight @ rows.scores.astype(np.float64) / weight[rows.labels].sum())
    return MetricValue(value=value, rows=rows.count, positives=rows.positives)


def expected_calibration_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    num_bins: int = 20,
) -> MetricValue:
    """ECE = sum_b (n_b / n) |mean p_b - mean y_b| over bins of equal mass.

    Equal mass, not equal width: click probabilities crowd near zero. Zero is not reachable by a
    perfect model on few rows: each bin carries its sampling noise.
    """
    check_probabilities(probabilities)
    rows = check_rows(probabilities, labels, weights)
    if rows.count == 0:
        return MetricValue(value=None, rows=0, positives=0, reason="no rows")
    return error_of_runs(collapse(rows), num_bins=num_bins)


def error_of_runs(runs: ScoreRuns, *, num_bins: int) -> MetricValue:
    """ECE of one run or more of probabilities."""
    value = error_of_curve(curve_of_runs(runs, num_bins=num_bins))
    return MetricValue(value=value, rows=runs.rows, positives=runs.positives)


def calibration_curve(
    probabilities: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    num_bins: int = 20,
) -> CalibrationCurve:
    """The reliability curve; ValueError as `check_rows`, or for scores outside [0, 1]."""
    check_probabilities(probabilities)
    rows = check_rows(probabilities, labels, weights)
    return curve_of_runs(collapse(rows), num_bins=num_bins)


def error_of_curve(curve: CalibrationCurve) -> float:
    """ECE from the bins of a curve."""
    return float(curve.weight @ np.abs(curve.predicted - curve.observed))


def curve_of_runs(runs: ScoreRuns, *, num_bins: int) -> CalibrationCurve:
    """Bin runs of probabilities; equal scores share a bin, so the row order cannot matter."""
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; give at least one bin")
    mass = runs.positive + runs.negative
    total = mass.sum()
    # a run goes to the bin where the middle of its mass lies
    middle = (np.cumsum(mass) - mass / 2) / max(total, np.finfo(np.float64).tiny)
    bins = np.minimum((middle * num_bins).astype(np.int64), num_bins - 1)
    weight = np.bincount(bins, weights=mass, minlength=num_bins)
    used = weight > 0
    weight = weight[used]
    positive = np.bincount(bins, weights=runs.positive, minlength=num_bins)[used]
    predicted = np.bincount(bins, weights=mass * runs.scores, minlength=num_bins)[used]
    counts = np.bincount(bins, weights=runs.counts, minlength=num_bins)[used].astype(np.int64)
    observed = positive / weight
    margin = np.full_like(observed, np.nan) if runs.weighted else _wilson(observed, counts)
    centre = _wilson_centre(observed, counts)
    return CalibrationCurve(
        predicted=predicted / weight,
        observed=observed,
        weight=weight / total,
        counts=counts,
        low=np.maximum(centre - margin, 0.0),
        high=np.minimum(centre + margin, 1.0),
    )


# two-sided 95 %
_Z = NormalDist().inv_cdf(0.975)


def _wilson_centre(rate: Float64Array, counts: IntArray) -> Float64Array:
    """Centre of the Wilson (1927) score interval."""
    return (rate + _Z**2 / (2 * counts)) / (1 + _Z**2 / counts)


def _wilson(rate: Float64Array, counts: IntArray) -> Float64Array:
    """Half width of the Wilson score interval."""
    spread = np.sqrt(rate * (1 - rate) / counts + _Z**2 / (4 * counts**2))
    return _Z * spread / (1 + _Z**2 / counts)
