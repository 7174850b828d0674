"""Slice columns that follow from the rows themselves: activity, popularity, hour."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ranker.metrics.rows import IntArray
from ranker.report.predictions import Predictions

USER_ACTIVITY = "user_activity"
HOUR = "hour"
COUNT_PREFIX = "count."

DERIVED = (USER_ACTIVITY, HOUR)

_UNITS_PER_HOUR = {"s": 3600, "ms": 3_600_000, "us": 3_600_000_000}


def field_of(name: str) -> str | None:
    """The field that a slice needs: of `category` and of `count.category` it is `category`."""
    return None if name in DERIVED else name.removeprefix(COUNT_PREFIX)


def add_slices(
    predictions: Predictions,
    names: Sequence[str],
    *,
    fields: Mapping[str, IntArray],
    time_unit: str = "s",
) -> Predictions:
    """Predictions with the named slice columns besides those they have.

    `user_activity` is how many rows of these the user has, `hour` the hour of the day (UTC) of
    `time`, `count.<field>` how many of these rows share the row's value of the field (for the item:
    its popularity here), any other name is the field itself.

    Args:
        predictions: n rows.
        names: of slices.
        fields: [n] values by field, at least those that `field_of` names.
        time_unit: of `predictions.time`: "s", "ms" or "us".
    """
    added: dict[str, IntArray] = {}
    for name in names:
        field = field_of(name)
        if name == USER_ACTIVITY:
            added[name] = _counts(predictions.user)
        elif name == HOUR:
            added[name] = predictions.time // _UNITS_PER_HOUR[time_unit] % 24
        else:
            assert field is not None
            added[name] = _counts(fields[field]) if field != name else fields[field]
    return replace(predictions, slices={**predictions.slices, **added})


def _counts(values: IntArray) -> IntArray:
    """How many rows share each row's value [n]."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[index].astype(np.int64)
