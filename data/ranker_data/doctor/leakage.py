"""Whether a single field knows a label: its AUC, on rows that it did not learn from."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ranker_data.columns import Array, Column, IntArray, Ragged, plain
from ranker_data.schema import Field, Schema

FloatArray = NDArray[np.float64]

# fewer rows of a class tell nothing about an AUC above 0.95
MIN_ROWS_OF_A_CLASS = 50
# rows of the overall rate that every id starts with
_PRIOR_ROWS = 2.0


def field_aucs(
    columns: Mapping[str, Column], schema: Schema, seed: int = 0
) -> dict[tuple[str, str], float]:
    """Returns the AUC of every field for every label, where there are enough rows of both classes.

    A dense field is its own score, in the better direction. An id scores the label's rate among the
    rows of the *other* half with the same id, so that an id of one row knows nothing; a list of ids
    scores their mean.

    Args:
        columns: fields and labels of some rows.
        schema: of the data set.
        seed: of the halves.
    """
    aucs: dict[tuple[str, str], float] = {}
    for label in schema.labels:
        target = plain(columns[label.name])
        rows = np.flatnonzero(~np.isnan(target))
        positive = target[rows] == 1
        if min(positive.sum(), (~positive).sum()) < MIN_ROWS_OF_A_CLASS:
            continue
        half = np.random.default_rng(seed).random(len(rows)) < 0.5
        for field in schema.fields:
            scores = _scores(columns[field.name], field, rows, positive, half)
            if field.kind == "dense":
                auc = binary_auc(scores, positive)
                aucs[label.name, field.name] = max(auc, 1 - auc)
            else:
                # each half has its own rates, which do not compare with the other's
                halves = [binary_auc(scores[h], positive[h]) for h in (half, ~half)]
                aucs[label.name, field.name] = float(np.mean(halves))
    return aucs


def binary_auc(scores: FloatArray, positive: NDArray[np.bool_]) -> float:
    """Returns the probability that a positive row scores higher, ties counting half."""
    order = np.sort(scores)
    below = np.searchsorted(order, scores, side="left")
    up_to = np.searchsorted(order, scores, side="right")
    ranks = (below + up_to + 1) / 2
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if num_positive == 0 or num_negative == 0:
        return 0.5
    above = ranks[positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def _scores(
    column: Column,
    field: Field,
    rows: IntArray,
    positive: NDArray[np.bool_],
    half: NDArray[np.bool_],
) -> FloatArray:
    if field.kind == "dense":
        return plain(column)[rows].astype(np.float64)
    values, owner = _elements(column, rows)
    _, codes = np.unique(values, return_inverse=True)
    scores = np.empty(len(rows))
    for learned in (half, ~half):
        weights = learned[owner]
        counts = np.bincount(codes, weights=weights)
        hits = np.bincount(codes, weights=weights & positive[owner])
        rate = positive[learned].mean() if learned.any() else 0.5
        rates = (hits + _PRIOR_ROWS * rate) / (counts + _PRIOR_ROWS)
        sums = np.bincount(owner, weights=rates[codes], minlength=len(rows))
        lengths = np.bincount(owner, minlength=len(rows))
        means = np.where(lengths > 0, sums / np.maximum(lengths, 1), rate)
        scores[~learned] = means[~learned]
    return scores


def _elements(column: Column, rows: IntArray) -> tuple[Array, IntArray]:
    """Returns the ids of the given rows, and the place of the row of each."""
    if not isinstance(column, Ragged):
        return column[rows], np.arange(len(rows))
    lengths = column.lengths
    owner = np.repeat(np.arange(len(column)), lengths)
    place = np.full(len(column), -1)
    place[rows] = np.arange(len(rows))
    kept = place[owner] >= 0
    return column.values[kept], place[owner[kept]]
