"""The rows on which a task is evaluated, and what a metric must be to be put into a report.

A further metric is a class whose keyword-only constructor takes what a user chooses and whose call
takes `EvaluationRows`; a report shows it under the name that its configuration gives it.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ranker.metrics.rows import BoolArray, Float64Array, FloatArray, IntArray
from ranker.metrics.value import MetricValue


@dataclass(frozen=True, kw_only=True)
class EvaluationRows:
    """Scored rows with a label and a positive weight; n of them, in any order."""

    labels: BoolArray  # [n]
    logits: FloatArray  # [n]
    probabilities: FloatArray  # [n]
    weights: Float64Array | None  # [n], None if all rows weigh the same
    users: IntArray  # [n]
    groups: IntArray  # [n] what GAUC averages over
    requests: IntArray  # [n] rows that were shown together
    truth: Float64Array | None  # [n] true probability, where a simulator knows it

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def positives(self) -> int:
        """Number of rows with label 1."""
        return int(np.count_nonzero(self.labels))


class RowMetric(Protocol):
    """A metric of one task that a report can show beside its own."""

    def __call__(self, rows: EvaluationRows) -> MetricValue:
        """The metric on these rows, undefined with a reason where it has no value."""
        ...
