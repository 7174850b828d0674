"""The training curves of a report: a few series out of the records of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ranker.report.constraints import CONSTRAINT, MULTIPLIER, REFERENCE
from ranker.report.encoding import Json
from ranker.report.feasibility import HELD_OUT

MAX_POINTS = 400

# a record's key is a metric, or task.metric
DRAWN_METRICS = ("loss", "auc", "gauc", "logloss")
# what is drawn of the constraints on held-out data, and what its line is called
_HELD_OUT = {
    "excess": "excess",
    "excess_low": "95% from",
    "excess_high": "95% to",
    "slack": "slack",
}


def training_series(records: Sequence[Mapping[str, Any]]) -> Json:
    """Series of [step, value] by chart and by name ("valid ctr.auc"), thinned to MAX_POINTS.

    Undefined and non-finite values are left out: a line has a gap where a run had none. Charts are
    DRAWN_METRICS, "multipliers", and "constraint <name>" and "held-out <name>" of constrained
    training.

    Args:
        records: lines of metrics.jsonl, {"kind": "train" or a split, "step": ..., key: value}.
    """
    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in records:
        for key, value in record.items():
            place = _place(str(record["kind"]), key)
            if place is not None and isinstance(value, int | float) and math.isfinite(value):
                chart, name = place
                points = series.setdefault(chart, {}).setdefault(name, [])
                if name == REFERENCE and points and points[-1][1] != value:
                    # it stays until the next stage has another
                    points.append((float(record["step"]), points[-1][1]))
                points.append((float(record["step"]), float(value)))
    later = [chart for chart in series if chart not in DRAWN_METRICS]
    return {
        chart: {name: _thin(points) for name, points in series[chart].items()}
        for chart in (*DRAWN_METRICS, *later)
        if chart in series
    }


def _place(kind: str, key: str) -> tuple[str, str] | None:
    """The chart and the line that a value belongs to; None for what is not drawn."""
    if key.startswith(MULTIPLIER):
        return "multipliers", key.removeprefix(MULTIPLIER)
    if key.startswith(CONSTRAINT):
        name, _, what = key.removeprefix(CONSTRAINT).rpartition("/")
        return f"constraint {name}", what
    if key.startswith(HELD_OUT):
        name, _, what = key.removeprefix(HELD_OUT).rpartition("/")
        return (f"held-out {name}", _HELD_OUT[what]) if what in _HELD_OUT else None
    metric = key.rpartition(".")[2]
    return (metric, f"{kind} {key}") if metric in DRAWN_METRICS else None


def _thin(points: Sequence[tuple[float, float]]) -> list[list[float]]:
    """Each point the mean of neighbours, if there are too many."""
    stride = -(-len(points) // MAX_POINTS)
    blocks = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [
        [sum(step for step, _ in block) / len(block), sum(value for _, value in block) / len(block)]
        for block in blocks
    ]
