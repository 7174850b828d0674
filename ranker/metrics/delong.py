"""DeLong's variance of the AUC, its interval, and the paired test of two models.

DeLong, DeLong & Clarke-Pearson, Biometrics 1988; in O(n log n) by midranks: Sun & Xu, IEEE Signal
Processing Letters 2014. Rows are taken as independent; impressions of one user are not, so the
user-level bootstrap is the interval to trust when users have many rows.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from ranker.metrics.auc import auc_of_runs
from ranker.metrics.rows import BoolArray, Float64Array, FloatArray, check_rows
from ranker.metrics.runs import ScoreRuns, run_starts
from ranker.metrics.value import Interval, PairedDifference, one_class_reason

METHOD = "delong"


def delong_interval(runs: ScoreRuns, *, level: float = 0.95) -> Interval:
    """Interval of the AUC on the logit scale, which keeps it inside (0, 1).

    logit(AUC) +- z sqrt(S) / (AUC (1 - AUC)). Undefined with weights, with fewer than two rows of a
    class, and at an AUC of 0 or 1, where the estimated variance is 0.
    """
    check_level(level)
    reason = one_class_reason(runs.rows, runs.positives)
    if runs.weighted:
        reason = "DeLong's variance is defined for unweighted rows"
    elif reason is None and min(runs.positives, runs.rows - runs.positives) < 2:
        reason = "fewer than two rows of a class"
    if reason is not None:
        return Interval(low=None, high=None, level=level, method=METHOD, reason=reason)
    value, variance = auc_of_runs(runs), delong_variance(runs)
    if not 0 < value < 1:
        reason = f"the AUC is {value:.0f}, where the estimated variance is 0"
        return Interval(low=None, high=None, level=level, method=METHOD, reason=reason)
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = math.log(value / (1 - value))
    margin = z * math.sqrt(variance) / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-(centre + sign * margin))) for sign in (-1, 1))
    return Interval(low=low, high=high, level=level, method=METHOD)


def delong_variance(runs: ScoreRuns) -> float:
    """S = S10 / n+ + S01 / n-, sample variances of the structural components.

    V10_i is the share of negatives below positive i, V01_j the share of positives above negative j,
    ties counting one half; both are constant within a run. Needs two rows of each class.
    """
    assert not runs.weighted
    positives, negatives = runs.positive.sum(), runs.negative.sum()
    value = auc_of_runs(runs)
    of_positive = (runs.below() + runs.negative / 2) / negatives
    of_negative = (runs.above() + runs.positive / 2) / positives
    spread_positive = runs.positive @ (of_positive - value) ** 2 / (positives - 1)
    spread_negative = runs.negative @ (of_negative - value) ** 2 / (negatives - 1)
    return float(spread_positive / positives + spread_negative / negatives)


def delong_test(
    scores_a: ArrayLike, scores_b: ArrayLike, labels: ArrayLike, *, level: float = 0.95
) -> PairedDifference:
    """AUC of model a minus AUC of model b on the same rows, its interval and two-sided p-value.

    z = (A_a - A_b) / sqrt(S_aa + S_bb - 2 S_ab).

    Args:
        scores_a: [n] finite.
        scores_b: [n] finite, the same rows in the same order.
        labels: [n] 0 or 1.
        level: of the interval.

    Raises:
        ValueError: a class has fewer than two rows, or as `check_rows`.
    """
    check_level(level)
    first, second = check_rows(scores_a, labels), check_rows(scores_b, labels)
    label = first.labels
    if min(first.positives, first.count - first.positives) < 2:
        raise ValueError(
            f"DeLong's test needs two rows of each class; there are {first.positives:,} positives "
            f"in {first.count:,} rows"
        )
    placed = placements(first.scores, label) - placements(second.scores, label)
    difference = float(placed[label].mean())
    variance = float(placed[label].var(ddof=1) / label.sum())
    variance += float(placed[~label].var(ddof=1) / (~label).sum())
    if variance == 0:
        reason = "both models order the rows alike"
        none = Interval(low=None, high=None, level=level, method=METHOD, reason=reason)
        return PairedDifference(difference=difference, interval=none, p_value=None)
    error = math.sqrt(variance)
    margin = NormalDist().inv_cdf((1 + level) / 2) * error
    return PairedDifference(
        difference=difference,
        interval=Interval(
            low=difference - margin, high=difference + margin, level=level, method=METHOD
        ),
        p_value=math.erfc(abs(difference / error) / math.sqrt(2)),
    )


def placements(scores: FloatArray, labels: BoolArray) -> Float64Array:
    """Structural component of every row [n]: V10 of positives, V01 of negatives; mean = AUC."""
    order = np.argsort(scores)
    label = labels[order]
    starts = run_starts(scores[order])
    positive = np.add.reduceat(label.astype(np.float64), starts)
    lengths = np.diff(starts, append=len(scores))
    negative = lengths - positive
    below = (np.cumsum(negative) - negative / 2) / negative.sum()
    above = 1 - (np.cumsum(positive) - positive / 2) / positive.sum()
    run = np.repeat(np.arange(len(starts)), lengths)
    placed = np.empty(len(scores))
    placed[order] = np.where(label, below[run], above[run])
    return placed


def check_level(level: float) -> None:
    """ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a confidence level in (0, 1), such as 0.95")
