from typing import Any

from ranker.metrics.value import Interval, MetricValue, PairedDifference
from ranker.report.encoding import adjust_p_values, difference_json, interval_json, metric_json


def test_defined_and_undefined() -> None:
    assert metric_json(MetricValue(value=0.5, rows=4, positives=2)) == {
        "value": 0.5,
        "reason": None,
        "rows": 4,
        "positives": 2,
        "interval": None,
    }
    undefined = MetricValue(value=None, rows=0, positives=0, reason="no rows")
    assert metric_json(undefined)["reason"] == "no rows"
    interval = Interval(low=0.1, high=0.2, level=0.9, method="m")
    encoded = {"low": 0.1, "high": 0.2, "level": 0.9, "method": "m", "reason": None}
    assert interval_json(interval) == encoded
    paired = PairedDifference(difference=0.15, interval=interval, p_value=0.04)
    assert difference_json(paired) == {
        "difference": 0.15,
        "interval": encoded,
        "p_value": 0.04,
        "p_adjusted": 0.04,
    }


def test_p_values_of_several_differences() -> None:
    entries: list[dict[str, Any]] = [
        {"difference": None},
        *({"difference": {"p_value": p}} for p in (0.01, None, 0.03)),
    ]
    adjust_p_values(entries)
    differences = [entry["difference"] for entry in entries[1:]]
    assert [d["p_adjusted"] for d in differences if d] == [0.02, None, 0.03]
