"""Proper scores of probabilities: logloss, normalised entropy, relative information gain, Brier."""

import math

import numpy as np
from numpy.typing import ArrayLike

from ranker.metrics.rows import Float64Array, Rows, check_rows
from ranker.metrics.value import MetricValue, one_class_reason


def logloss(logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> MetricValue:
    """Mean of softplus(z) - y z in nats, the negative log-likelihood of logits z [n].

    From logits there is nothing to clip: a certain and wrong row costs |z|, not a made-up maximum.
    """
    rows = check_rows(logits, labels, weights)
    if rows.count == 0:
        return MetricValue(value=None, rows=0, positives=0, reason="no rows")
    return _value(rows, _mean(row_logloss(rows.scores, rows.labels), rows))


def normalized_entropy(
    logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> MetricValue:
    """Logloss over the entropy of the mean label of the same rows; below 1 beats a constant.

    He et al., "Practical lessons from predicting clicks on ads at Facebook", ADKDD 2014.
    """
    rows = check_rows(logits, labels, weights)
    reason = one_class_reason(rows.count, rows.positives)
    if reason is not None:
        return MetricValue(value=None, rows=rows.count, positives=rows.positives, reason=reason)
    loss = _mean(row_logloss(rows.scores, rows.labels), rows)
    return _value(rows, loss / binary_entropy(_mean(rows.labels.astype(np.float64), rows)))


def relative_information_gain(
    logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> MetricValue:
    """RIG = 1 - NE: the share of the label's entropy that the model explains."""
    entropy = normalized_entropy(logits, labels, weights)
    if entropy.value is None:
        return entropy
    return MetricValue(value=1.0 - entropy.value, rows=entropy.rows, positives=entropy.positives)


def brier(
    probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> MetricValue:
    """Mean squared error (p - y)^2 of probabilities [n]."""
    check_probabilities(probabilities)
    rows = check_rows(probabilities, labels, weights)
    if rows.count == 0:
        return MetricValue(value=None, rows=0, positives=0, reason="no rows")
    return _value(rows, _mean((rows.scores.astype(np.float64) - rows.labels) ** 2, rows))


def row_logloss(logits: ArrayLike, labels: ArrayLike) -> Float64Array:
    """Logloss of every row [n], in float64."""
    logit = np.asarray(logits, dtype=np.float64)
    return np.logaddexp(0.0, logit) - np.asarray(labels, dtype=np.float64) * logit


def binary_entropy(rate: float) -> float:
    """Entropy in nats of a label with this rate, 0 < rate < 1."""
    return -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


def check_probabilities(probabilities: ArrayLike) -> None:
    """ValueError naming the first value outside [0, 1]; NaN is left to `check_rows`."""
    values = np.asarray(probabilities)
    outside = (values < 0) | (values > 1)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(
            f"probabilities[{row}] is {values[row]}; a probability must lie in [0, 1]; "
            "pass probabilities here, not logits"
        )


def _mean(values: Float64Array, rows: Rows) -> float:
    return float(np.average(values, weights=rows.weights))


def _value(rows: Rows, value: float) -> MetricValue:
    return MetricValue(value=value, rows=rows.count, positives=rows.positives)
