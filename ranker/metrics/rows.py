"""Checked evaluation rows: scores, labels, weights and groups of one length, all usable."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float32] | NDArray[np.float64]
Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows that take part in a metric: finite scores, 0/1 labels, positive weights.

    `weights` is None when all rows weigh the same: every metric here is invariant to a common
    factor, and the unweighted forms are exact in integers.
    """

    scores: FloatArray  # [n] float32 or float64
    labels: BoolArray  # [n]
    weights: Float64Array | None  # [n]
    groups: IntArray | None  # [n]

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.scores)

    @property
    def positives(self) -> int:
        """Number of rows with label 1."""
        return int(np.count_nonzero(self.labels))


def check_rows(
    scores: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Rows:
    """Validate what a metric was given; rows of weight zero (evaluation padding) are left out.

    Args:
        scores: [n], any real numbers; float32 stays float32, all else becomes float64.
        labels: [n], bool or numbers that are all 0 or 1.
        weights: [n], finite and not negative.
        groups: [n] integers.

    Raises:
        ValueError: naming the first row that breaks a rule.
    """
    score = _check_scores(scores)
    label = _check_labels(labels)
    weight = None if weights is None else check_weights(weights)
    group = None if groups is None else check_ids(groups, name="groups")
    for name, column in (("labels", label), ("weights", weight), ("groups", group)):
        if column is not None and len(column) != len(score):
            raise ValueError(
                f"{name} has {len(column):,} rows but scores has {len(score):,}; "
                "give one value per scored row"
            )
    if weight is not None and not weight.all():
        used = weight > 0
        score, label, weight = score[used], label[used], weight[used]
        group = None if group is None else group[used]
    if weight is not None and (len(weight) == 0 or weight.min() == weight.max()):
        weight = None
    return Rows(scores=score, labels=label, weights=weight, groups=group)


def check_weights(weights: ArrayLike) -> Float64Array:
    """Weights as float64 [n]; ValueError names the first one that is negative or not finite."""
    weight = _column(weights, "weights").astype(np.float64, copy=False)
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"weights[{row}] is {weight[row]}; a weight must be finite and not negative; "
            "give 0 to leave a row out"
        )
    return weight


def check_ids(ids: ArrayLike, *, name: str) -> IntArray:
    """Group or user ids as int64 [n]; ValueError if they are not integers."""
    column = _column(ids, name)
    if column.dtype.kind not in "iu":
        raise ValueError(
            f"{name} has dtype {column.dtype}; ids must be integers; hash strings first"
        )
    return column.astype(np.int64, copy=False)


def _check_scores(scores: ArrayLike) -> FloatArray:
    score = _column(scores, "scores")
    if score.dtype.kind not in "fiub":
        raise ValueError(f"scores has dtype {score.dtype}; scores must be real numbers")
    if score.dtype != np.float32:
        score = score.astype(np.float64, copy=False)
    # NaN survives both, and neither needs a mask of all rows
    if len(score) and not (np.isfinite(score.min()) and np.isfinite(score.max())):
        row = int(np.isfinite(score).argmin())
        raise ValueError(
            f"scores[{row}] is {score[row]}; every score must be finite; look for the row that "
            "made the model overflow, or leave the row out with weight 0 and a finite score"
        )
    return score


def _check_labels(labels: ArrayLike) -> BoolArray:
    label = _column(labels, "labels")
    if label.dtype == np.bool_:
        return label
    positive: BoolArray = label == 1
    known = positive | (label == 0)
    if not known.all():
        row = int(known.argmin())
        raise ValueError(
            f"labels[{row}] is {label[row]!s}; a label must be 0 or 1; "
            "leave out the rows where the label is not defined"
        )
    return positive


def _column(values: ArrayLike, name: str) -> NDArray[Any]:
    column = np.asarray(values)
    if column.ndim != 1:
        raise ValueError(f"{name} has shape {column.shape}; a metric takes one value per row, [n]")
    return column
