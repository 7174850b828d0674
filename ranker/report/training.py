"""The training curves of a report: a few series out of the records of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ranker.report.encoding import Json

MAX_POINTS = 400

# a record's key is a metric, or task.metric
DRAWN_METRICS = ("loss", "auc", "gauc", "logloss")


def training_series(records: Sequence[Mapping[str, Any]]) -> Json:
    """Series of [step, value] by metric and by name ("valid ctr.auc"), thinned to MAX_POINTS.

    Undefined and non-finite values are left out: a line has a gap where a run had none.

    Args:
        records: lines of metrics.jsonl, {"kind": "train" or a split, "step": ..., key: value}.
    """
    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in records:
        for key, value in record.items():
            metric = key.rpartition(".")[2]
            if metric not in DRAWN_METRICS or not isinstance(value, int | float):
                continue
            if math.isfinite(value):
                lines = series.setdefault(metric, {})
                points = lines.setdefault(f"{record['kind']} {key}", [])
                points.append((float(record["step"]), float(value)))
    return {
        metric: {name: _thin(points) for name, points in series[metric].items()}
        for metric in DRAWN_METRICS
        if metric in series
    }


def _thin(points: Sequence[tuple[float, float]]) -> list[list[float]]:
    """Each point the mean of neighbours, if there are too many."""
    stride = -(-len(points) // MAX_POINTS)
    blocks = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [
        [sum(step for step, _ in block) / len(block), sum(value for _, value in block) / len(block)]
        for block in blocks
    ]
