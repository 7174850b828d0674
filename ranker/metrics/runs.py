"""Rows sorted by score and collapsed into runs of equal score: the stuff of rank metrics."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ranker.metrics.rows import Float64Array, IntArray, Rows, check_rows


@dataclass(frozen=True, kw_only=True)
class ScoreRuns:
    """Distinct scores in ascending order with the weight of each class at that score.

    Rows with equal scores are one run, so nothing computed from runs depends on the row order.
    """

    scores: Float64Array  # [R] distinct, ascending
    positive: Float64Array  # [R] weight of the positives with this score
    negative: Float64Array  # [R] weight of the negatives with this score
    counts: IntArray  # [R] rows with this score
    positives: int  # positive rows in all
    weighted: bool

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())

    def below(self) -> Float64Array:
        """Weight of the negatives with a strictly lower score [R]."""
        return np.cumsum(self.negative) - self.negative

    def above(self) -> Float64Array:
        """Weight of the positives with a strictly higher score [R]."""
        reverse = self.positive[::-1]
        return (np.cumsum(reverse) - reverse)[::-1]


def score_runs(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> ScoreRuns:
    """Sort and collapse rows; ValueError as in `check_rows`."""
    return collapse(check_rows(scores, labels, weights))


def collapse(rows: Rows) -> ScoreRuns:
    """Runs of rows that were checked already."""
    order = np.argsort(rows.scores)
    scores = rows.scores[order]
    starts = run_starts(scores)
    positive = rows.labels[order].astype(np.float64)
    weight = np.ones(rows.count) if rows.weights is None else rows.weights[order]
    positive *= weight
    negative = weight - positive
    return ScoreRuns(
        scores=scores[starts].astype(np.float64),
        positive=_sums(positive, starts),
        negative=_sums(negative, starts),
        counts=np.diff(starts, append=rows.count),
        positives=rows.positives,
        weighted=rows.weights is not None,
    )


def run_starts(values: NDArray[Any]) -> IntArray:
    """Where runs of equal values begin in a sorted array [n]."""
    if len(values) == 0:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))


def _sums(values: Float64Array, starts: IntArray) -> Float64Array:
    # reduceat refuses an empty index
    return np.add.reduceat(values, starts) if len(starts) else np.empty(0)
