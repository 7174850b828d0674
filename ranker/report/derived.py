"""Slice columns that follow from the rows, or from the data a model learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ranker.metrics.rows import IntArray
from ranker.report.predictions import Predictions
from ranker_data.seen import SeenIds

USER_ACTIVITY = "user_activity"
HOUR = "hour"
COUNT_PREFIX = "count."
# these two need the training data
TRAIN_COUNT_PREFIX = "train_count."
AGE_PREFIX = "age."

DERIVED = (USER_ACTIVITY, HOUR)

_UNITS_PER_HOUR = {"s": 3600, "ms": 3_600_000, "us": 3_600_000_000}


def field_of(name: str) -> str | None:
    """The field that a slice needs: of `category` and of `count.category` it is `category`."""
    if name in DERIVED:
        return None
    for prefix in (COUNT_PREFIX, TRAIN_COUNT_PREFIX, AGE_PREFIX):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def trained_field_of(name: str) -> str | None:
    """The field whose training data a slice needs; None for most slices."""
    return field_of(name) if name.startswith((TRAIN_COUNT_PREFIX, AGE_PREFIX)) else None


def unseen_names(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """What the values of slices by training data are called that are no quantities."""
    words = {TRAIN_COUNT_PREFIX: {0: "not in training"}, AGE_PREFIX: {-1: "not seen before"}}
    return {
        name: known for name in names for prefix, known in words.items() if name.startswith(prefix)
    }


def add_slices(
    predictions: Predictions,
    names: Sequence[str],
    *,
    fields: Mapping[str, IntArray],
    time_unit: str = "s",
    seen: Mapping[str, SeenIds] | None = None,
) -> Predictions:
    """Predictions with the named slice columns besides those they have.

    `user_activity` is how many rows of these the user has, `hour` the hour of the day (UTC) of
    `time`, `count.<field>` how many of these rows share the row's value of the field (for the item:
    its popularity here), `train_count.<field>` how many training rows do, `age.<field>` the hours
    since the value was first seen (-1: not before), any other name is the field itself.

    Args:
        predictions: n rows.
        names: of slices.
        fields: [n] values by field, at least those that `field_of` names.
        time_unit: of `predictions.time`: "s", "ms" or "us".
        seen: by field, at least those that `trained_field_of` names.
    """
    unit = _UNITS_PER_HOUR[time_unit]
    added: dict[str, IntArray] = {}
    for name in names:
        field = field_of(name)
        if name == USER_ACTIVITY:
            added[name] = _counts(predictions.user)
        elif name == HOUR:
            added[name] = predictions.time // unit % 24
        else:
            assert field is not None
            values = fields[field]
            if name.startswith(COUNT_PREFIX):
                values = _counts(values)
            elif trained_field_of(name) is not None:
                assert seen is not None
                if name.startswith(TRAIN_COUNT_PREFIX):
                    values = seen[field].counts_of(values)
                else:
                    # floor division keeps -1
                    values = seen[field].ages_of(values, predictions.time) // unit
            added[name] = values
    return replace(predictions, slices={**predictions.slices, **added})


def _counts(values: IntArray) -> IntArray:
    """How many rows share each row's value [n]."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[index].astype(np.int64)
