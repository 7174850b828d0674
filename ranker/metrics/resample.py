"""Metrics of a curve or of requests as functions of user weights, for the bootstrap.

What is sorted once is shared: a replicate of any number of such metrics costs one pass.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from ranker.metrics.bootstrap import ClusterStatistic, ratio, sums_statistic
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.rows import Float64Array, FloatArray, IntArray
from ranker.metrics.runs import ScoreRuns, run_starts
from ranker.metrics.value import MetricValue

RunsMetric = Callable[[ScoreRuns], MetricValue]


class Resampler:
    """Rows whose users are resampled.

    Args:
        rows: n of them.
        index: [n] the cluster (user) of every row, from `cluster_index`.
        num_clusters: K.
    """

    def __init__(self, rows: EvaluationRows, index: IntArray, num_clusters: int) -> None:
        self.rows, self.index, self.num_clusters = rows, index, num_clusters

    def of_logits(self, metric: RunsMetric) -> ClusterStatistic:
        """A metric of the runs of logits; NaN where it is undefined."""
        return _statistic(self._logits, metric)

    def of_probabilities(self, metric: RunsMetric) -> ClusterStatistic:
        """A metric of the runs of probabilities."""
        return _statistic(self._probabilities, metric)

    def mean(self, values: Float64Array, rows: IntArray) -> ClusterStatistic:
        """The mean of values [Q], each of which stands for the user of one row [Q]."""
        columns = np.stack([values, np.ones(len(values))], axis=1)
        return sums_statistic(columns, self.index[rows], self.num_clusters, ratio)

    @cached_property
    def _logits(self) -> "_ResampledRuns":
        return _ResampledRuns(self.rows, self.rows.logits, self.index)

    @cached_property
    def _probabilities(self) -> "_ResampledRuns":
        return _ResampledRuns(self.rows, self.rows.probabilities, self.index)


@runtime_checkable
class ResampledMetric(Protocol):
    """A further metric that a report shows with an interval: a `RowMetric` that has this too."""

    def statistic(self, resampler: Resampler) -> ClusterStatistic | None:
        """The metric as a function of user weights; None if users do not determine it."""
        ...


class _ResampledRuns:
    """Runs of equal score under user weights, kept until other weights are asked for."""

    def __init__(self, rows: EvaluationRows, scores: FloatArray, index: IntArray) -> None:
        order = np.argsort(scores)
        ordered = scores[order]
        self.starts = run_starts(ordered)
        self.scores = ordered[self.starts].astype(np.float64)
        self.counts = np.diff(self.starts, append=len(order))
        self.cluster, self.labels = index[order], rows.labels[order]
        self.weights = None if rows.weights is None else rows.weights[order]
        self.positives = rows.positives
        self._drawn: Float64Array | None = None
        self._runs: ScoreRuns | None = None

    def __call__(self, drawn: Float64Array) -> ScoreRuns | None:
        """The runs, None if a class is missing."""
        if drawn is not self._drawn:
            self._drawn, self._runs = drawn, self._draw(drawn)
        return self._runs

    def _draw(self, drawn: Float64Array) -> ScoreRuns | None:
        weight = drawn[self.cluster]
        if self.weights is not None:
            weight *= self.weights
        mass = np.add.reduceat(weight, self.starts)
        weight *= self.labels
        positive = np.add.reduceat(weight, self.starts)
        negative = mass - positive
        if not positive.any() or not negative.any():
            return None
        used = mass > 0
        return ScoreRuns(
            scores=self.scores[used],
            positive=positive[used],
            negative=negative[used],
            counts=self.counts[used],
            positives=self.positives,
            weighted=True,
        )


def _statistic(resampled: _ResampledRuns, metric: RunsMetric) -> ClusterStatistic:
    def statistic(drawn: Float64Array) -> float:
        runs = resampled(drawn)
        value = None if runs is None else metric(runs).value
        return math.nan if value is None else value

    return statistic
