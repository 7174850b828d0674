"""Poisson bootstrap over users: intervals and paired differences that respect correlated rows.

Every replicate gives each cluster (user) an independent Poisson(1) weight (Chamandy et al.,
"Estimating uncertainty for massive data streams", Google 2012). All statistics of one call see the
same weights, so replicates of two models are paired by construction.
"""

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from ranker.metrics.delong import check_level
from ranker.metrics.gauc import GroupAucs
from ranker.metrics.rows import Float64Array, IntArray, check_ids, check_rows
from ranker.metrics.runs import run_starts
from ranker.metrics.student_t import student_t_quantile, student_t_tail
from ranker.metrics.value import Interval, PairedDifference

METHOD = "user bootstrap"

# below this many clusters the spread of the replicates says little about the spread of the metric
MIN_CLUSTERS = 10

# share of replicates that may be undefined (say, drew no positive) before the interval is
MAX_UNDEFINED_FRACTION = 0.05

# a metric as a function of the cluster weights [K]; NaN where they leave it undefined
ClusterStatistic = Callable[[Float64Array], float]


def cluster_index(clusters: ArrayLike) -> tuple[IntArray, int]:
    """Ids [n] as positions [n] into the sorted distinct ids, and how many of those there are."""
    ids, index = np.unique(check_ids(clusters, name="clusters"), return_inverse=True)
    return index.astype(np.int64, copy=False), len(ids)


def poisson_bootstrap(
    statistics: Mapping[str, ClusterStatistic],
    *,
    num_clusters: int,
    num_replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Float64Array]:
    """Replicates [B] of every statistic; a pure function of its arguments.

    Args:
        statistics: by name; built by the functions below.
        num_clusters: K.
        num_replicates: B.
        seed: replicate b draws its weights from (seed, b) alone.
    """
    if num_replicates < 2:
        raise ValueError(f"num_replicates is {num_replicates}; give at least 2, usually 1000")
    replicates = {name: np.empty(num_replicates) for name in statistics}
    for replicate in range(num_replicates):
        generator = np.random.default_rng((seed, replicate))
        # 16 random bits and a table: twenty times faster than drawing from the distribution
        weights = _POISSON[generator.integers(1 << 16, size=num_clusters, dtype=np.uint16)]
        for name, statistic in statistics.items():
            replicates[name][replicate] = statistic(weights)
    return replicates


def auc_statistic(
    scores: ArrayLike, labels: ArrayLike, index: IntArray, weights: ArrayLike | None = None
) -> ClusterStatistic:
    """AUC as a function of cluster weights; sorts once, each call is linear in the rows.

    Args:
        scores: [n] finite.
        labels: [n] 0 or 1.
        index: [n] from `cluster_index`.
        weights: [n] positive: leave rows of weight zero out before.
    """
    rows = check_rows(scores, labels, weights)
    assert rows.count == len(index)
    order = np.argsort(rows.scores)
    label, cluster = rows.labels[order], index[order]
    starts = run_starts(rows.scores[order])
    lengths = np.diff(starts, append=rows.count)
    upto = np.cumsum(~label)
    # negatives strictly below, and not above, every positive
    not_above = np.repeat(upto[starts + lengths - 1], lengths)[label]
    below: IntArray = np.repeat((upto - ~label)[starts], lengths)[label]
    positive_cluster, negative_cluster = cluster[label], cluster[~label]
    scale = None if rows.weights is None else rows.weights[order]
    cumulated = np.zeros(len(negative_cluster) + 1)

    def statistic(drawn: Float64Array) -> float:
        np.take(drawn, negative_cluster, out=cumulated[1:], mode="clip")
        positive = drawn[positive_cluster]
        if scale is not None:
            positive *= scale[label]
            cumulated[1:] *= scale[~label]
        np.cumsum(cumulated, out=cumulated)
        doubled = positive @ (cumulated[below] + cumulated[not_above])
        pairs = float(positive.sum() * cumulated[-1])
        return float(doubled) / (2 * pairs) if pairs else math.nan

    return statistic


def sums_statistic(
    columns: Float64Array,
    index: IntArray,
    num_clusters: int,
    combine: Callable[[Float64Array], float],
) -> ClusterStatistic:
    """Any function of weighted sums, such as a ratio of two; each call is linear in the clusters.

    Args:
        columns: [n, S] what is summed.
        index: [n] from `cluster_index`.
        num_clusters: K.
        combine: sums [S] -> the metric, NaN if they leave it undefined.
    """
    sums = np.stack(
        [np.bincount(index, weights=column, minlength=num_clusters) for column in columns.T]
    )  # [S, K]

    def statistic(drawn: Float64Array) -> float:
        return combine(sums @ drawn)

    return statistic


def ratio(sums: Float64Array) -> float:
    """First sum over second, for `sums_statistic`."""
    return float(sums[0] / sums[1]) if sums[1] else math.nan


def gauc_statistic(
    parts: GroupAucs,
    group_clusters: IntArray,
    num_clusters: int,
    weights: Float64Array | None = None,
) -> ClusterStatistic:
    """GAUC as a function of cluster weights, without touching a row again.

    A group lies inside one cluster (the group is the user, or a request of the user), so resampling
    users changes how much each group counts but not its AUC.

    Args:
        parts: of `group_aucs`, G groups.
        group_clusters: [G] the cluster of every group.
        num_clusters: K.
        weights: [G] of the groups; None takes their impressions.
    """
    used = parts.defined
    weight = (parts.positive + parts.negative if weights is None else weights)[used]
    columns = np.stack([weight * parts.aucs()[used], weight], axis=1)
    return sums_statistic(columns, group_clusters[used], num_clusters, ratio)


def percentile_interval(
    replicates: Float64Array, *, num_clusters: int, level: float = 0.95
) -> Interval:
    """The expanded percentile interval: the middle of the replicates [B], a bit more than `level`.

    With K clusters the replicates spread by sqrt((K - 1) / K) too little, and a normal distribution
    stands where Student's t with K - 1 degrees of freedom should. Both are made good by quantiles
    further out (Hesterberg, "What teachers should know about the bootstrap", The American
    Statistician 2015, section 4.3). Undefined for few clusters or many NaN.
    """
    check_level(level)
    reason = _unusable(replicates, num_clusters)
    if reason is not None:
        return Interval(low=None, high=None, level=level, method=METHOD, reason=reason)
    margin = student_t_quantile((1 + level) / 2, num_clusters - 1)
    tail = _NORMAL.cdf(-margin * math.sqrt(num_clusters / (num_clusters - 1)))
    defined = replicates[~np.isnan(replicates)]
    # this definition leaves the tail outside on average, however few replicates there are
    low, high = np.quantile(defined, [tail, 1 - tail], method="weibull")
    return Interval(low=float(low), high=float(high), level=level, method=METHOD)


def debiased_interval(
    value: float, replicates: Float64Array, *, num_clusters: int, level: float = 0.95
) -> Interval:
    """Interval of a metric >= 0 that resampling moves upwards, such as a calibration error.

    Replicates exceed the value by about as much as the value exceeds the truth. That bias is taken
    off, and because it is only about as much, it counts as an error of its own: value - bias +- t
    sqrt(variance + bias^2), cut at 0. The value itself is always inside.
    """
    usable = percentile_interval(replicates, num_clusters=num_clusters, level=level)
    if usable.reason is not None:
        return usable
    defined = replicates[~np.isnan(replicates)]
    bias = float(defined.mean()) - value
    spread = float(defined.std(ddof=1)) * math.sqrt(num_clusters / (num_clusters - 1))
    margin = student_t_quantile((1 + level) / 2, num_clusters - 1) * math.hypot(spread, bias)
    low, high = max(value - bias - margin, 0.0), max(value - bias + margin, 0.0)
    return Interval(low=low, high=high, level=level, method=f"{METHOD}, bias taken off")


def paired_difference(
    value_a: float,
    value_b: float,
    replicates_a: Float64Array,
    replicates_b: Float64Array,
    *,
    num_clusters: int,
    level: float = 0.95,
) -> PairedDifference:
    """Difference a - b with the percentile interval of the differences of paired replicates [B].

    The p-value is twice the smaller share of differences on either side of zero, counted with one
    more replicate on each side, and corrected for the number of clusters as the interval is.
    It cannot be smaller than about 2 / (B + 1).
    """
    differences = replicates_a - replicates_b
    interval = percentile_interval(differences, num_clusters=num_clusters, level=level)
    p_value = None
    if interval.reason is None:
        defined = differences[~np.isnan(differences)]
        tail = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
        share = min(0.5, (int(tail) + 1) / (len(defined) + 1))
        margin = -_NORMAL.inv_cdf(share) * math.sqrt((num_clusters - 1) / num_clusters)
        p_value = 2 * student_t_tail(margin, num_clusters - 1) if margin > 0 else 1.0
    return PairedDifference(difference=value_a - value_b, interval=interval, p_value=p_value)


def _unusable(replicates: Float64Array, num_clusters: int) -> str | None:
    if num_clusters < MIN_CLUSTERS:
        return f"{num_clusters:,} users are too few to resample (at least {MIN_CLUSTERS})"
    undefined = int(np.isnan(replicates).sum())
    if undefined > MAX_UNDEFINED_FRACTION * len(replicates):
        return f"undefined in {undefined:,} of {len(replicates):,} replicates"
    return None


def _poisson_table() -> Float64Array:
    """Poisson(1) counts [65536]: the inverse distribution function at the middle of each step."""
    probabilities = [math.exp(-1) / math.factorial(count) for count in range(12)]
    steps = (np.arange(1 << 16) + 0.5) / (1 << 16)
    return np.searchsorted(np.cumsum(probabilities), steps).astype(np.float64)


_POISSON = _poisson_table()
_NORMAL = NormalDist()
