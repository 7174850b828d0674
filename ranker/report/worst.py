"""Where a model is worst: slices and pairs of slices, found by their point values, then measured.

The worst of many looks worse than it is, because luck helps to be chosen. So the report says out of
how many a slice was picked, and calls one worse only if that holds after a Bonferroni correction.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from statistics import NormalDist

import numpy as np

from ranker.metrics.auc import auc
from ranker.metrics.rows import BoolArray
from ranker.report.context import ReportContext
from ranker.report.encoding import Json
from ranker.report.evaluated import task_rows
from ranker.report.measure import SLICE_METRICS, measure
from ranker.report.predictions import Predictions

NUM_WORST = 5

# one slice, or the rows that two slices of different columns share
Cut = tuple[str, BoolArray]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    label: str
    # kept apart: hundreds of intersections of many rows would not fit into memory
    masks: Sequence[BoolArray]
    value: float
    error: float  # standard error of the value, roughly


def find_worst(
    predictions: Predictions,
    task: str,
    tables: Mapping[str, Sequence[Cut]],
    overall: float | None,
    context: ReportContext,
) -> Json:
    """The NUM_WORST slices whose AUC is below the task's by most standard errors.

    Args:
        predictions: n rows.
        task: its name.
        tables: by column, the slices of the task's rows: label and mask [n].
        overall: AUC of the task; None finds nothing.
        context: how intervals are made, and which slices are too small to look at.

    Returns:
        {"candidates": number looked at, "slices": [{"slice", "rows", "positives", "metrics",
        "below": whether the AUC is below the task's beyond what being the worst
        of so many explains}]}.
    """
    singles = (
        (f"{column} {label}", (mask,)) for column, cuts in tables.items() for label, mask in cuts
    )
    pairs = (
        (f"{first} {one} and {second} {two}", (left, right))
        for first, second in combinations(tables, 2)
        for one, left in tables[first]
        for two, right in tables[second]
    )
    found = [
        candidate
        for label, masks in chain(singles, pairs)
        if (candidate := _score(predictions, task, label, masks, context)) is not None
    ]
    if overall is None or not found:
        return {"candidates": len(found), "slices": []}
    worst = sorted(found, key=lambda found: (found.value - overall) / found.error)[:NUM_WORST]
    return {
        "candidates": len(found),
        "slices": [
            _measure(predictions, task, candidate, overall, len(found), context)
            for candidate in worst
            if candidate.value < overall
        ],
    }


def _score(
    predictions: Predictions,
    task: str,
    label: str,
    masks: Sequence[BoolArray],
    context: ReportContext,
) -> _Candidate | None:
    scored = predictions.tasks[task]
    mask = _intersect(masks)
    labels = scored.label[mask] == 1
    positives = int(np.count_nonzero(labels))
    if min(positives, len(labels) - positives) < context.min_slice_class_rows:
        return None
    value = float(auc(scored.logit[mask], labels, predictions.weight[mask]))
    error = _standard_error(value, positives, len(labels) - positives)
    return _Candidate(label=label, masks=masks, value=value, error=error)


def _standard_error(value: float, positives: int, negatives: int) -> float:
    """Hanley & McNeil, Radiology 1982: the AUC's standard error from counts alone, to rank by."""
    of_positives = value / (2 - value) - value**2
    of_negatives = 2 * value**2 / (1 + value) - value**2
    variance = value * (1 - value)
    variance += (positives - 1) * of_positives + (negatives - 1) * of_negatives
    # an AUC of 0 or 1 would claim to know itself exactly
    return max(math.sqrt(variance / (positives * negatives)), 1 / (positives + negatives))


def _measure(
    predictions: Predictions,
    task: str,
    candidate: _Candidate,
    overall: float,
    num_candidates: int,
    context: ReportContext,
) -> Json:
    rows = replace(task_rows(predictions, task, _intersect(candidate.masks)), truth=None)
    metrics = measure(rows, context, names=SLICE_METRICS)["metrics"]
    high = metrics["auc"]["interval"]["high"]
    stretch = _quantile(1 - (1 - context.level) / num_candidates) / _quantile(context.level)
    return {
        "slice": candidate.label,
        "rows": rows.count,
        "positives": rows.positives,
        "metrics": metrics,
        "below": high is not None
        and candidate.value + (high - candidate.value) * stretch < overall,
    }


def _intersect(masks: Sequence[BoolArray]) -> BoolArray:
    return masks[0] if len(masks) == 1 else masks[0] & masks[1]


def _quantile(level: float) -> float:
    """How many standard errors a two-sided interval of this level reaches."""
    return NormalDist().inv_cdf((1 + level) / 2)
