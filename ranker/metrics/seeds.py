"""A model's metric over several training seeds: its mean, and the difference of two models.

Two things make a measured difference uncertain: which users happen to be in the test set (the user
bootstrap measures it), and which seed training happened to get (the spread over seeds on the same
test set measures it). They are independent, so their variances add up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranker.metrics.delong import check_level
from ranker.metrics.rows import Float64Array
from ranker.metrics.student_t import student_t_quantile, student_t_tail
from ranker.metrics.value import Interval, PairedDifference

METHOD = "users and seeds"
ONE_SEED_METHOD = "user bootstrap, one seed"


@dataclass(frozen=True, kw_only=True)
class SeededMetric:
    """One metric of one model, trained with S seeds and measured on the same rows."""

    values: Sequence[float]  # [S]
    replicates: Float64Array  # [S, B] of the user bootstrap, paired with those of other models


def seeded_mean(metric: SeededMetric, *, level: float = 0.95) -> Interval:
    """Interval of the mean over seeds, for other users and other seeds."""
    check_level(level)
    return _interval(float(np.mean(metric.values)), _variances([metric]), level)


def seeded_difference(a: SeededMetric, b: SeededMetric, *, level: float = 0.95) -> PairedDifference:
    """Mean of `a` minus mean of `b`, with Welch's degrees of freedom for the spread over seeds.

    With one seed on both sides the interval speaks of other users only: it cannot know what another
    seed would have done, and its method says so.
    """
    check_level(level)
    difference = float(np.mean(a.values) - np.mean(b.values))
    variances = _variances([a, b])
    interval = _interval(difference, variances, level)
    if interval.reason is not None:
        return PairedDifference(difference=difference, interval=interval, p_value=None)
    error, freedom = _error(variances)
    p_value = 2 * student_t_tail(abs(difference) / error, freedom)
    return PairedDifference(difference=difference, interval=interval, p_value=min(p_value, 1.0))


@dataclass(frozen=True, kw_only=True)
class _Variances:
    users: float
    # (variance of the mean, degrees of freedom) of each side with two seeds or more
    seeds: list[tuple[float, int]]


def _variances(sides: Sequence[SeededMetric]) -> _Variances:
    signs = (1, -1)
    drawn = sum(
        sign * side.replicates.mean(axis=0) for sign, side in zip(signs, sides, strict=False)
    )
    seeds = [
        (float(np.var(side.values, ddof=1)) / len(side.values), len(side.values) - 1)
        for side in sides
        if len(side.values) > 1
    ]
    return _Variances(users=float(np.nanvar(drawn, ddof=1)), seeds=seeds)


def _error(variances: _Variances) -> tuple[float, float]:
    """Standard error and Welch-Satterthwaite degrees of freedom; users count as many."""
    total = variances.users + sum(variance for variance, _ in variances.seeds)
    doubtful = sum(variance**2 / freedom for variance, freedom in variances.seeds)
    return math.sqrt(total), total**2 / doubtful if doubtful > 0 else math.inf


def _interval(centre: float, variances: _Variances, level: float) -> Interval:
    method = METHOD if variances.seeds else ONE_SEED_METHOD
    error, freedom = _error(variances)
    if error == 0 or math.isnan(error):
        reason = "the values do not vary" if error == 0 else "undefined in the replicates"
        return Interval(low=None, high=None, level=level, method=method, reason=reason)
    margin = student_t_quantile((1 + level) / 2, freedom) * error
    return Interval(low=centre - margin, high=centre + margin, level=level, method=method)
