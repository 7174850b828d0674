"""What a metric returns: a number with its row counts, or no number and the reason why."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """One metric on one set of rows.

    `value` is None exactly when `reason` says why: an undefined metric is never reported as 0 or
    0.5 and never averaged in.
    """

    value: float | None
    rows: int
    positives: int
    reason: str | None = None

    def __post_init__(self) -> None:
        assert (self.value is None) == (self.reason is not None)
        assert self.value is None or not math.isnan(self.value)

    def __float__(self) -> float:
        """The number; ValueError with the reason if there is none."""
        if self.value is None:
            raise ValueError(f"the metric is undefined: {self.reason}")
        return self.value


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval; `low` and `high` are None exactly when `reason` says why."""

    low: float | None
    high: float | None
    level: float
    method: str
    reason: str | None = None

    def __post_init__(self) -> None:
        assert (self.low is None) == (self.high is None) == (self.reason is not None)

    def bounds(self) -> tuple[float, float]:
        """Low and high; ValueError with the reason if there are none."""
        if self.low is None or self.high is None:
            raise ValueError(f"the interval is undefined: {self.reason}")
        return self.low, self.high


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """A metric of model `a` minus the same metric of model `b` on the same rows.

    `p_value` is two-sided against a difference of zero, None where `interval` is undefined.
    """

    difference: float
    interval: Interval
    p_value: float | None


def one_class_reason(rows: int, positives: int) -> str | None:
    """Why a metric that compares positives with negatives has no value; None if it has one."""
    if rows == 0:
        return "no rows"
    if positives == 0:
        return f"no positives in {rows:,} rows"
    if positives == rows:
        return f"no negatives in {rows:,} rows"
    return None
