"""A task with a condition on every row, where a simulator knows the truth: ESMM's entire space.

A conversion rate is learned from clicked rows and used on all of them (Ma et al., "Entire space
multi-task model", SIGIR 2018). The labels of the other rows do not exist, but a simulator knows
their probability t: each row then counts as a positive of weight t and a negative of weight 1 - t,
which gives the expectation of what labels would have measured.
"""

import numpy as np

from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.rows import BoolArray, Float64Array
from ranker.report.context import ReportContext
from ranker.report.encoding import Json
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.measure import measure
from ranker.report.predictions import Predictions

METRICS = ("auc", "gauc", "normalized_entropy", "pcoc")


def build_entire_space(predictions: Predictions, task: str, context: ReportContext) -> Json | None:
    """Expected metrics on all rows and, for contrast, on the task's own rows, as {space: metrics}.

    None where the truth is not known, or where the task has a label on every row anyway.
    """
    own = evaluation_mask(predictions, task)
    every = predictions.weight > 0
    if predictions.tasks[task].truth is None or np.array_equal(own, every) or not own.any():
        return None
    return {
        "all_rows": _expected(predictions, task, every, context),
        "labelled_rows": _expected(predictions, task, own, context),
    }


def _expected(predictions: Predictions, task: str, mask: BoolArray, context: ReportContext) -> Json:
    rows = expected_rows(task_rows(predictions, task, mask))
    metrics = measure(rows, context, names=METRICS)["metrics"]
    # the rows are halves of rows, so their number means nothing to DeLong
    metrics["auc"].pop("delong", None)
    return {"rows": int(np.count_nonzero(mask)), "metrics": metrics}


def expected_rows(rows: EvaluationRows) -> EvaluationRows:
    """Rows [n] with a known truth as 2n weighted rows, which carry every outcome."""
    assert rows.truth is not None
    weight = np.ones(rows.count) if rows.weights is None else rows.weights
    weights: Float64Array = np.concatenate([weight * rows.truth, weight * (1 - rows.truth)])
    # an impossible outcome is not a row
    kept = weights > 0
    labels = np.repeat([True, False], rows.count)[kept]
    return EvaluationRows(
        labels=labels,
        logits=np.concatenate([rows.logits, rows.logits])[kept],
        probabilities=np.concatenate([rows.probabilities, rows.probabilities])[kept],
        weights=weights[kept],
        users=np.tile(rows.users, 2)[kept],
        groups=np.tile(rows.groups, 2)[kept],
        requests=np.tile(rows.requests, 2)[kept],
        truth=None,
    )
