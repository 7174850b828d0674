"""Exact, tie-correct area under the ROC curve by one sort."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ranker.metrics.keys import UInt32Array
from ranker.metrics.rows import BoolArray, FloatArray, check_rows
from ranker.metrics.runs import ScoreRuns, collapse, run_starts
from ranker.metrics.value import MetricValue, one_class_reason

# rows handled at a time, so that temporaries stay in the cache
BLOCK = 1 << 20


def auc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> MetricValue:
    """Share of (positive, negative) pairs that are in the right order, ties counting one half.

    AUC = 1/(n+ n-) sum_{i in +} sum_{j in -} [1(s_i > s_j) + 1(s_i = s_j)/2], the Mann-Whitney
    statistic with midranks. Unweighted values are exact in integers up to the final division;
    weights replace counts. Cost: O(n log n), no Python loop.

    Args:
        scores: [n] finite, any monotone transform of the probability (logits keep more digits).
        labels: [n] 0 or 1.
        weights: [n] not negative.

    Returns:
        A value in [0, 1], or None with the reason when a class is missing.

    Raises:
        ValueError: a score is not finite, a label is not 0 or 1, a weight is negative.
    """
    rows = check_rows(scores, labels, weights)
    reason = one_class_reason(rows.count, rows.positives)
    if reason is not None:
        return MetricValue(value=None, rows=rows.count, positives=rows.positives, reason=reason)
    if rows.weights is not None:
        value = auc_of_runs(collapse(rows))
    else:
        pairs = rows.positives * (rows.count - rows.positives)
        value = _doubled_wins(rows.scores, rows.labels) / (2 * pairs)
    return MetricValue(value=value, rows=rows.count, positives=rows.positives)


def auc_of_runs(runs: ScoreRuns) -> float:
    """AUC of rows that are sorted already and hold both classes."""
    wins = runs.positive @ (runs.below() + runs.negative / 2)
    return float(wins / (runs.positive.sum() * runs.negative.sum()))


def _doubled_wins(scores: FloatArray, labels: BoolArray) -> int:
    """Twice the pairs won plus the pairs tied, an exact integer."""
    if scores.dtype == np.float64:
        return _doubled_wins_split(scores, labels)
    wins = positives = negatives = 0
    for keys in _packed_keys(scores, labels):
        for block in _blocks(keys):
            found = _count_sorted(block)
            wins += found.doubled_wins + 2 * found.positives * negatives
            positives += found.positives
            negatives += len(block) - found.positives
    return wins


def _packed_keys(scores: FloatArray, labels: BoolArray) -> tuple[UInt32Array, UInt32Array]:
    """Sorted keys (score << 1 | label) of the negative numbers, and of the others.

    Numbers of one sign need 31 bits, which leaves the lowest of 32 for the label. The keys [n] are
    the only memory of this size: touching fresh memory costs more than sorting it.
    """
    keys = np.empty(len(scores), dtype=np.uint32)
    low, high = 0, len(keys)
    for start in range(0, len(keys), BLOCK):
        rows = slice(start, start + BLOCK)
        # adding zero turns -0.0 into 0.0, which it must tie with
        block = (scores[rows] + np.float32(0.0)).view(np.uint32)
        signed = block > np.uint32(0x7FFFFFFF)
        block <<= np.uint32(1)
        block |= labels[rows].view(np.uint8)
        below, others = block[signed], block[~signed]
        # negative numbers are ordered against their magnitude, hence the flipped bits
        np.bitwise_xor(below, np.uint32(0xFFFFFFFE), out=keys[low : low + len(below)])
        keys[high - len(others) : high] = others
        low, high = low + len(below), high - len(others)
    keys[:low].sort()
    keys[low:].sort()
    return keys[:low], keys[low:]


def _blocks(keys: UInt32Array) -> Iterator[UInt32Array]:
    """Sorted keys [n] in pieces of about BLOCK that share no score."""
    start = 0
    while start < len(keys):
        end = start + BLOCK
        if end < len(keys):
            end = int(np.searchsorted(keys, keys[end - 1] | np.uint32(1), side="right"))
        yield keys[start:end]
        start = end


@dataclass(frozen=True, kw_only=True)
class _Counts:
    doubled_wins: int
    positives: int


def _count_sorted(keys: UInt32Array) -> _Counts:
    """What sorted keys (score << 1 | label) [n] hold, counted in integers."""
    # the n-th positive at position p has p - n negatives with a score not above its own
    positions = np.flatnonzero((keys.astype(np.uint8) & 1).view(np.bool_))
    count = len(positions)
    if count == 0:
        return _Counts(doubled_wins=0, positives=0)
    not_above = int(positions.sum()) - count * (count - 1) // 2
    # within a tie the negatives come first: look only at the first positive of every score
    positive_keys = keys[positions]
    starts = run_starts(positive_keys)
    lengths = np.diff(starts, append=count)
    first = positions[starts]
    tied = (first > 0) & (keys[first - 1] == (positive_keys[starts] ^ np.uint32(1)))
    first, lengths = first[tied], lengths[tied]
    negatives = first - np.searchsorted(keys, keys[first - 1], side="left")
    return _Counts(doubled_wins=2 * not_above - int(negatives @ lengths), positives=count)


def _doubled_wins_split(scores: FloatArray, labels: BoolArray) -> int:
    """The same for float64, which leaves no bit for the label: sort the classes apart."""
    positive, negative = np.sort(scores[labels]), np.sort(scores[~labels])
    few, many = sorted((positive, negative), key=len)
    below = np.searchsorted(many, few, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(many, few, side="right").sum(dtype=np.int64)
    doubled = int(below) + int(not_above)
    return doubled if few is positive else 2 * len(few) * len(many) - doubled
