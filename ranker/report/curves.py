"""The curves of a report as plain numbers, thinned so that a page stays small."""

import numpy as np

from ranker.metrics.calibration import calibration_curve
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.roc import precision_recall_curve, roc_curve
from ranker.metrics.rows import Float64Array
from ranker.metrics.runs import score_runs
from ranker.metrics.value import one_class_reason
from ranker.report.encoding import Json

MAX_ROC_POINTS = 300
NUM_HISTOGRAM_BINS = 40
DIGITS = 6


def build_curves(rows: EvaluationRows, *, num_bins: int) -> Json:
    """ROC, precision-recall (None with one class), calibration, histogram (None without rows)."""
    if rows.count == 0:
        return {"roc": None, "precision_recall": None, "calibration": None, "histogram": None}
    return {
        "roc": _roc(rows),
        "precision_recall": _precision_recall(rows),
        "calibration": _calibration(rows, num_bins),
        "histogram": _histogram(rows),
    }


def _roc(rows: EvaluationRows) -> Json | None:
    if one_class_reason(rows.count, rows.positives) is not None:
        return None
    runs = score_runs(rows.logits, rows.labels, rows.weights)
    curve = roc_curve(runs, max_points=MAX_ROC_POINTS)
    return {
        "false_positive_rate": _numbers(curve.false_positive_rate),
        "true_positive_rate": _numbers(curve.true_positive_rate),
    }


def _precision_recall(rows: EvaluationRows) -> Json | None:
    if one_class_reason(rows.count, rows.positives) is not None:
        return None
    runs = score_runs(rows.logits, rows.labels, rows.weights)
    curve = precision_recall_curve(runs, max_points=MAX_ROC_POINTS)
    return {"recall": _numbers(curve.recall), "precision": _numbers(curve.precision)}


def _calibration(rows: EvaluationRows, num_bins: int) -> Json:
    curve = calibration_curve(rows.probabilities, rows.labels, rows.weights, num_bins=num_bins)
    weighted = bool(np.isnan(curve.low).any())
    return {
        "predicted": _numbers(curve.predicted),
        "observed": _numbers(curve.observed),
        "weight": _numbers(curve.weight),
        "rows": curve.counts.tolist(),
        "low": None if weighted else _numbers(curve.low),
        "high": None if weighted else _numbers(curve.high),
    }


def _histogram(rows: EvaluationRows) -> Json:
    """Share of each class per logit bin; the outermost thousandths are piled on the end bins."""
    logits = rows.logits.astype(np.float64)
    low, high = np.quantile(logits, [0.001, 0.999])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, NUM_HISTOGRAM_BINS + 1)
    clipped = np.clip(logits, low, high)

    def shares(label: bool) -> list[float] | None:
        picked = rows.labels == label
        if not picked.any():
            return None
        weights = None if rows.weights is None else rows.weights[picked]
        counts = np.histogram(clipped[picked], bins=edges, weights=weights)[0].astype(np.float64)
        return _numbers(counts / counts.sum())

    return {"edges": _numbers(edges), "positive": shares(True), "negative": shares(False)}


def _numbers(values: Float64Array) -> list[float]:
    # six decimals of a rate, six digits of a small probability
    return [float(f"{value:.{DIGITS}g}") for value in values]
