"""Metric values, intervals and differences as the JSON of a report."""

from typing import Any

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
    """A paired difference as JSON."""
    return {
        "difference": paired.difference,
        "interval": interval_json(paired.interval),
        "p_value": paired.p_value,
    }
