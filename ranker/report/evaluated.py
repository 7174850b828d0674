"""From predictions to the rows on which one task is evaluated."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.rows import BoolArray, Float64Array
from ranker.report.predictions import Predictions


def evaluation_mask(predictions: Predictions, task: str) -> BoolArray:
    """Where a task is evaluated [n]: its label is defined and the row weighs something."""
    mask: BoolArray = ~np.isnan(predictions.tasks[task].label) & (predictions.weight > 0)
    return mask


def task_rows(predictions: Predictions, task: str, mask: BoolArray) -> EvaluationRows:
    """Rows of a task where `mask` [n]; a subset of `evaluation_mask`."""
    # the common case, all rows, needs no copy
    pick: BoolArray | slice = slice(None) if mask.all() else mask
    scored = predictions.tasks[task]
    weights: Float64Array | None = predictions.weight[pick]
    if weights is not None and (len(weights) == 0 or weights.min() == weights.max()):
        weights = None
    return EvaluationRows(
        labels=scored.label[pick] == 1,
        logits=scored.logit[pick],
        probabilities=scored.probability[pick],
        weights=weights,
        users=predictions.user[pick],
        groups=predictions.group[pick],
        requests=predictions.request[pick],
        truth=None if scored.truth is None else scored.truth[pick],
    )


def columns(values: Sequence[NDArray[Any]], weights: Float64Array | None) -> Float64Array:
    """Values [n] each as weighted columns [n, S]."""
    stacked = np.stack([np.asarray(value, dtype=np.float64) for value in values], axis=1)
    return stacked if weights is None else stacked * weights[:, None]
