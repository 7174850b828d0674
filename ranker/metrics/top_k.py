"""What a person sees first: NDCG@k, hit rate@k and mean reciprocal rank per request.

Rows with equal scores in a request are in no order, so every metric is the mean over all ways to
break the ties (for NDCG: McSherry & Najork, ECIR 2008). A constant score gets what a random order
gets, whatever the order of the rows. Requests without a positive have no ideal order: skipped.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ranker.metrics.bootstrap import ClusterStatistic
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.keys import score_keys
from ranker.metrics.resample import Resampler
from ranker.metrics.rows import Float64Array, IntArray, check_rows
from ranker.metrics.runs import run_starts
from ranker.metrics.value import MetricValue


@dataclass(frozen=True, kw_only=True)
class _Ranking:
    """Requests with a positive, best score first, collapsed into R runs of equal score."""

    rows: int
    positives: int
    request: IntArray  # [R] which of the Q requests, ascending
    start: IntArray  # [R] rows of the request before the run
    size: IntArray  # [R]
    hits: IntArray  # [R] positives in the run
    request_hits: IntArray  # [Q] positives of every request, at least 1
    row: IntArray  # [Q] any row of the request


def ndcg(scores: ArrayLike, labels: ArrayLike, requests: ArrayLike, *, k: int) -> MetricValue:
    """Mean over requests of DCG@k over the ideal DCG@k, discount 1 / log2(1 + rank).

    Args:
        scores: [n] finite.
        labels: [n] 0 or 1.
        requests: [n] integer ids, in any order.
        k: ranks that count.

    Raises:
        ValueError: k is below 1, or as `check_rows`.
    """
    _check_k(k)
    ranking = _rank(scores, labels, requests)
    return _mean(_ndcg_values(ranking, k), ranking)


def _ndcg_values(ranking: _Ranking, k: int) -> Float64Array:
    # discounts[r] is the sum over the first r ranks
    longest = int((ranking.start + ranking.size).max(initial=0))
    ranks = np.arange(1, longest + 1)
    discount = np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0)
    discounts = np.concatenate([[0.0], np.cumsum(discount)])
    covered = discounts[ranking.start + ranking.size] - discounts[ranking.start]
    gain = np.bincount(
        ranking.request,
        weights=ranking.hits * covered / ranking.size,
        minlength=len(ranking.request_hits),
    )
    values: Float64Array = gain / discounts[ranking.request_hits]
    return values


def hit_rate(scores: ArrayLike, labels: ArrayLike, requests: ArrayLike, *, k: int) -> MetricValue:
    """Share of requests with a positive among the first k; arguments and errors as `ndcg`."""
    _check_k(k)
    ranking = _rank(scores, labels, requests)
    return _mean(_hit_values(ranking, k), ranking)


def _hit_values(ranking: _Ranking, k: int) -> Float64Array:
    slots = np.clip(k - ranking.start, 0, ranking.size)
    # chance that the drawn rows of a run hold no positive: the product of (m - p - j) / (m - j)
    miss = np.ones(len(slots))
    misses = ranking.size - ranking.hits
    for drawn in range(int(slots.max(initial=0))):
        still = drawn < slots
        miss[still] *= np.maximum(misses[still] - drawn, 0) / (ranking.size[still] - drawn)
    missed = np.ones(len(ranking.request_hits))
    np.multiply.at(missed, ranking.request, miss)
    return 1 - missed


def mean_reciprocal_rank(scores: ArrayLike, labels: ArrayLike, requests: ArrayLike) -> MetricValue:
    """Mean over requests of 1 / rank of the first positive; arguments and errors as `ndcg`."""
    ranking = _rank(scores, labels, requests)
    return _mean(_reciprocal_values(ranking), ranking)


def _reciprocal_values(ranking: _Ranking) -> Float64Array:
    with_hits = np.flatnonzero(ranking.hits)
    first = with_hits[run_starts(ranking.request[with_hits])]
    start, size, hits = ranking.start[first], ranking.size[first], ranking.hits[first]
    reciprocal = np.zeros(len(first))
    # chance that no positive was among the rows of the run drawn so far
    none_yet = np.ones(len(first))
    for drawn in range(int((size - hits).max(initial=-1)) + 1):
        left = np.maximum(size - drawn, 1)
        found = np.where(drawn <= size - hits, none_yet * hits / left, 0.0)
        reciprocal += found / (start + drawn + 1)
        none_yet -= found
    return reciprocal


class _PerRequest(ABC):
    """A mean over the requests of an evaluation that have a positive."""

    @abstractmethod
    def _values(self, ranking: _Ranking) -> Float64Array: ...

    def __call__(self, rows: EvaluationRows) -> MetricValue:
        """The mean on these rows."""
        ranking = _rank(rows.logits, rows.labels, rows.requests)
        return _mean(self._values(ranking), ranking)

    def statistic(self, resampler: Resampler) -> ClusterStatistic | None:
        """The mean as a function of user weights; None if a request has rows of several users."""
        rows = resampler.rows
        ranking = _rank(rows.logits, rows.labels, rows.requests)
        request = np.unique(rows.requests, return_inverse=True)[1]
        user = np.empty(request.max(initial=-1) + 1, dtype=np.int64)
        user[request] = resampler.index
        if not len(ranking.row) or not (user[request] == resampler.index).all():
            return None
        return resampler.mean(self._values(ranking), ranking.row)


class Ndcg(_PerRequest):
    """`ndcg` of the requests of an evaluation."""

    def __init__(self, *, k: int) -> None:
        _check_k(k)
        self.k = k

    def _values(self, ranking: _Ranking) -> Float64Array:
        return _ndcg_values(ranking, self.k)


class HitRate(_PerRequest):
    """`hit_rate` of the requests of an evaluation."""

    def __init__(self, *, k: int) -> None:
        _check_k(k)
        self.k = k

    def _values(self, ranking: _Ranking) -> Float64Array:
        return _hit_values(ranking, self.k)


class MeanReciprocalRank(_PerRequest):
    """`mean_reciprocal_rank` of the requests of an evaluation."""

    def _values(self, ranking: _Ranking) -> Float64Array:
        return _reciprocal_values(ranking)


def _rank(scores: ArrayLike, labels: ArrayLike, requests: ArrayLike) -> _Ranking:
    rows = check_rows(scores, labels, groups=requests)
    assert rows.groups is not None
    _, row, request = np.unique(rows.groups, return_index=True, return_inverse=True)
    # requests with a positive, renumbered
    hits = np.bincount(request, weights=rows.labels)
    kept = (hits > 0)[request]
    number = np.cumsum(hits > 0) - 1
    request, label = number[request[kept]], rows.labels[kept]
    descending = ~score_keys(rows.scores[kept])
    keys = (request.astype(np.uint64) << np.uint64(32)) | descending
    order = np.argsort(keys)
    starts = run_starts(keys[order])
    request_of_run = request[order][starts]
    begins = run_starts(request_of_run)
    begin = np.repeat(starts[begins], np.diff(begins, append=len(starts)))
    return _Ranking(
        rows=rows.count,
        positives=rows.positives,
        request=request_of_run,
        start=starts - begin,
        size=np.diff(starts, append=len(order)),
        hits=np.add.reduceat(label[order].astype(np.int64), starts) if len(starts) else starts,
        request_hits=hits[hits > 0].astype(np.int64),
        row=row[hits > 0],
    )


def _mean(values: Float64Array, ranking: _Ranking) -> MetricValue:
    if len(values) == 0:
        reason = f"no positives in {ranking.rows:,} rows" if ranking.rows else "no rows"
        return MetricValue(value=None, rows=ranking.rows, positives=0, reason=reason)
    return MetricValue(value=float(values.mean()), rows=ranking.rows, positives=ranking.positives)


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}; give the number of ranks that count, at least 1")
