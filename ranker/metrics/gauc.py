"""Grouped AUC: the AUC inside every user (or request), averaged over groups with both classes.

DIN (Zhou et al., KDD 2018): GAUC = sum_g w_g AUC_g / sum_g w_g, w_g = impressions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ranker.metrics.keys import UInt64Array, group_codes, score_keys
from ranker.metrics.rows import Float64Array, IntArray, check_rows
from ranker.metrics.runs import run_starts
from ranker.metrics.value import MetricValue

LABEL_BIT = np.uint64(1)
GROUP_SHIFT = np.uint64(33)


@dataclass(frozen=True, kw_only=True)
class GroupAucs:
    """Per-group figures of all G groups, in ascending order of their ids."""

    groups: IntArray  # [G]
    doubled_wins: Float64Array  # [G] twice the (weighted) pairs won plus the pairs tied
    positive: Float64Array  # [G] weight of the positives, their number without weights
    negative: Float64Array  # [G]
    rows: int
    positives: int

    @property
    def defined(self) -> NDArray[np.bool_]:
        """Which groups hold both classes [G]."""
        return (self.positive > 0) & (self.negative > 0)

    def aucs(self) -> Float64Array:
        """AUC of every group [G], NaN where a class is missing."""
        pairs = np.where(self.defined, 2 * self.positive * self.negative, np.nan)
        return self.doubled_wins / pairs


@dataclass(frozen=True, kw_only=True)
class _Wins:
    starts: IntArray  # [G] first sorted row of every group
    doubled: Float64Array  # [G]
    positive: Float64Array  # [G]
    negative: Float64Array  # [G]


@dataclass(frozen=True, kw_only=True)
class Gauc:
    """GAUC in its three weightings, and what it could not use.

    Groups with one class only have no AUC and are skipped; at a low click rate that is often most
    of them, so no GAUC is complete without the shares.
    """

    impressions: MetricValue  # weighted by impressions (DIN, TWIN): the one to quote
    uniform: MetricValue  # every group counts once
    positive: MetricValue  # weighted by positives
    num_groups: int
    skipped_groups_fraction: float
    skipped_rows_fraction: float  # by weight, if rows are weighted


def gauc(
    scores: ArrayLike, labels: ArrayLike, groups: ArrayLike, weights: ArrayLike | None = None
) -> Gauc:
    """Grouped AUC with exact ties, by one sort over (group, score, label).

    Args:
        scores: [n] finite.
        labels: [n] 0 or 1.
        groups: [n] integer ids, in any order: users, or requests.
        weights: [n] not negative.

    Raises:
        ValueError: as `check_rows`.
    """
    return summarize(group_aucs(scores, labels, groups, weights))


def group_aucs(
    scores: ArrayLike, labels: ArrayLike, groups: ArrayLike, weights: ArrayLike | None = None
) -> GroupAucs:
    """The AUC of every group; the parts of `gauc`, for the bootstrap."""
    rows = check_rows(scores, labels, weights, groups)
    assert rows.groups is not None
    if rows.count == 0:
        empty = np.empty(0)
        return GroupAucs(
            groups=np.empty(0, dtype=np.int64),
            doubled_wins=empty,
            positive=empty,
            negative=empty,
            rows=0,
            positives=0,
        )
    codes = group_codes(rows.groups)
    keys = codes.codes << GROUP_SHIFT
    keys |= score_keys(rows.scores).astype(np.uint64) << LABEL_BIT
    keys |= rows.labels.view(np.uint8)
    if rows.weights is None:
        keys.sort()
        wins = _count_wins(keys)
    else:
        order = np.argsort(keys)
        keys = keys[order]
        wins = _weigh_wins(keys, rows.weights[order])
    return GroupAucs(
        groups=codes.ids_of(keys[wins.starts] >> GROUP_SHIFT),
        doubled_wins=wins.doubled,
        positive=wins.positive,
        negative=wins.negative,
        rows=rows.count,
        positives=rows.positives,
    )


def summarize(parts: GroupAucs) -> Gauc:
    """Average per-group AUCs; undefined, with the reason, when no group has both classes."""
    used = parts.defined
    impressions = parts.positive + parts.negative
    aucs = parts.aucs()[used]
    num_groups = len(used)

    def average(weights: Float64Array) -> MetricValue:
        if not used.any():
            reason = f"none of {num_groups:,} groups has both classes"
            return MetricValue(
                value=None, rows=parts.rows, positives=parts.positives, reason=reason
            )
        value = float(aucs @ weights[used] / weights[used].sum())
        return MetricValue(value=value, rows=parts.rows, positives=parts.positives)

    return Gauc(
        impressions=average(impressions),
        uniform=average(np.ones(num_groups)),
        positive=average(parts.positive),
        num_groups=num_groups,
        skipped_groups_fraction=float(np.mean(~used)) if num_groups else 0.0,
        skipped_rows_fraction=(
            float(impressions[~used].sum() / impressions.sum()) if num_groups else 0.0
        ),
    )


def _count_wins(keys: UInt64Array) -> _Wins:
    """What `group_aucs` needs of the sorted keys [n], counted in integers."""
    starts = run_starts(keys >> GROUP_SHIFT)
    sizes = np.diff(starts, append=len(keys))
    positions = np.flatnonzero((keys.astype(np.uint8) & 1).view(np.bool_))
    # bounds[g] : bounds[g + 1] are the positives of group g
    bounds = np.append(np.searchsorted(positions, starts), len(positions))
    positives = np.diff(bounds)
    before = np.concatenate([[0], np.cumsum(positions)])
    # the n-th positive of a group, at p, has p - start - n negatives with a score not above its own
    not_above = np.diff(before[bounds]) - positives * starts - positives * (positives - 1) // 2
    doubled = 2 * not_above - _ties(keys, positions, bounds)
    return _Wins(
        starts=starts,
        doubled=doubled.astype(np.float64),
        positive=positives.astype(np.float64),
        negative=(sizes - positives).astype(np.float64),
    )


def _ties(keys: UInt64Array, positions: IntArray, bounds: IntArray) -> IntArray:
    """Tied pairs of every group [G]: within a tie the negatives sort before the positives."""
    ties = np.zeros(len(bounds) - 1, dtype=np.int64)
    positive_keys = keys[positions]
    run = run_starts(positive_keys)
    lengths = np.diff(run, append=len(positions))
    first = positions[run]
    tied = (first > 0) & (keys[first - 1] == (positive_keys[run] ^ LABEL_BIT))
    run, first, lengths = run[tied], first[tied], lengths[tied]
    negatives = first - np.searchsorted(keys, keys[first - 1], side="left")
    np.add.at(ties, np.searchsorted(bounds, run, side="right") - 1, negatives * lengths)
    return ties


def _weigh_wins(keys: UInt64Array, weights: Float64Array) -> _Wins:
    """The same with weights [n] in the order of the sorted keys."""
    labels = (keys & LABEL_BIT).astype(np.float64)
    runs = run_starts(keys >> LABEL_BIT)
    positive = np.add.reduceat(weights * labels, runs)
    negative = np.add.reduceat(weights * (1 - labels), runs)
    run_groups = keys[runs] >> GROUP_SHIFT
    group_runs = run_starts(run_groups)
    # extended precision: the running sum spans all groups, the difference only one
    cumulated = np.cumsum(negative, dtype=np.longdouble)
    base = np.concatenate([[0], cumulated])[group_runs]
    below = cumulated - negative - np.repeat(base, np.diff(group_runs, append=len(runs)))
    doubled = positive * (2 * below.astype(np.float64) + negative)
    return _Wins(
        starts=runs[group_runs],
        doubled=np.add.reduceat(doubled, group_runs),
        positive=np.add.reduceat(positive, group_runs),
        negative=np.add.reduceat(negative, group_runs),
    )
