import math

import pytest

from ranker.metrics.value import Interval, MetricValue, one_class_reason


def test_a_value_and_a_reason_exclude_each_other() -> None:
    MetricValue(value=0.5, rows=2, positives=1)
    MetricValue(value=None, rows=2, positives=0, reason="no positives in 2 rows")
    for value, reason in ((None, None), (0.5, "why"), (math.nan, None)):
        with pytest.raises(AssertionError):
            MetricValue(value=value, rows=2, positives=1, reason=reason)


def test_an_interval_is_whole_or_has_a_reason() -> None:
    Interval(low=0.1, high=0.2, level=0.95, method="m")
    Interval(low=None, high=None, level=0.95, method="m", reason="why")
    for low, high, reason in ((None, 0.2, None), (0.1, 0.2, "why"), (None, None, None)):
        with pytest.raises(AssertionError):
            Interval(low=low, high=high, level=0.95, method="m", reason=reason)


def test_numbers_of_undefined_values_are_refused_with_the_reason() -> None:
    assert float(MetricValue(value=0.5, rows=2, positives=1)) == 0.5
    assert Interval(low=0.1, high=0.2, level=0.95, method="m").bounds() == (0.1, 0.2)
    with pytest.raises(ValueError, match="undefined: no rows"):
        float(MetricValue(value=None, rows=0, positives=0, reason="no rows"))
    with pytest.raises(ValueError, match="undefined: few"):
        Interval(low=None, high=None, level=0.95, method="m", reason="few").bounds()


def test_one_class_reason() -> None:
    assert one_class_reason(0, 0) == "no rows"
    assert one_class_reason(1204, 0) == "no positives in 1,204 rows"
    assert one_class_reason(5, 5) == "no negatives in 5 rows"
    assert one_class_reason(5, 4) is None
