"""Metric values, intervals and differences as the JSON of a report."""

from collections.abc import Sequence
from typing import Any

from ranker.metrics.multiple import holm
from ranker.metrics.value import Interval, MetricValue, PairedDifference

Json = dict[str, Any]


def metric_json(value: MetricValue) -> Json:
    """A metric as JSON, its interval not known yet."""
    return {
        "value": value.value,
        "reason": value.reason,
        "rows": value.rows,
        "positives": value.positives,
        "interval": None,
    }


def interval_json(interval: Interval) -> Json:
    """An interval as JSON, or the reason why there is none."""
    return {
        "low": interval.low,
        "high": interval.high,
        "level": interval.level,
        "method": interval.method,
        "reason": interval.reason,
    }


def difference_json(paired: PairedDifference) -> Json:
    """A paired difference as JSON; `p_adjusted` is set when all of a metric's are known."""
    return {
        "difference": paired.difference,
        "interval": interval_json(paired.interval),
        "p_value": paired.p_value,
        "p_adjusted": paired.p_value,
    }


def adjust_p_values(entries: Sequence[Json]) -> None:
    """Corrects the p-values of a metric's differences for their number, in place (Holm)."""
    found = [entry["difference"] for entry in entries if entry["difference"]]
    adjusted = holm([difference["p_value"] for difference in found])
    for difference, value in zip(found, adjusted, strict=True):
        difference["p_adjusted"] = value
