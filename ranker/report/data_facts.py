"""Facts of the data that a report was made from, in words."""

import datetime
from collections.abc import Mapping

import numpy as np

from ranker.metrics.rows import IntArray
from ranker.report.encoding import Json
from ranker.report.predictions import Predictions

_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}


def describe_rows(predictions: Predictions, *, time_unit: str) -> dict[str, str]:
    """The rows of a report that weigh something: when, whose, how many."""
    weighed = predictions.weight > 0
    facts = {"rows": f"{np.count_nonzero(weighed):,}"}
    time = predictions.time[weighed]
    if len(np.unique(time)) > 1:
        ends = int(time.min()), int(time.max())
        facts["time (UTC)"] = " to ".join(_moment(end, time_unit) for end in ends)
    per_user = np.unique(predictions.user[weighed], return_counts=True)[1]
    facts["users"] = f"{len(per_user):,}"
    facts["rows of a user"] = _quantiles(per_user)
    requests = np.unique(predictions.request[weighed], return_counts=True)[1]
    facts["requests"] = f"{len(requests):,}"
    facts["rows of a request"] = _quantiles(requests)
    for name, task in predictions.tasks.items():
        known = task.label[weighed & ~np.isnan(task.label)]
        share = f"{known.mean():.2%} positive" if len(known) else "no label at all"
        facts[f"label of {name}"] = f"known for {len(known):,} rows, {share}"
    if "history_length" in predictions.slices:
        facts["history length"] = _quantiles(predictions.slices["history_length"][weighed])
    return facts


def describe_training_data(stats: Json, *, time_unit: str) -> dict[str, str]:
    """What a prepared data set's stats.json says of the rows that a model learned from."""
    train: Mapping[str, Json] = stats.get("samples", {}).get("train", {})
    if not train:
        return {}
    facts = {"training rows": f"{train['num_rows']:,} of {train['num_users']:,} users"}
    if train["num_rows"]:
        ends = (train["time"]["first"], train["time"]["last"])
        facts["training time (UTC)"] = " to ".join(_moment(end, time_unit) for end in ends)
    for name, label in train["labels"].items():
        if label["rate"] is not None:
            facts[f"training label {name}"] = f"{label['rate']:.2%} positive"
    behaviors = stats.get("behaviors", {})
    if behaviors.get("num_rows"):
        events = behaviors["events_per_user"]
        facts["behaviours"] = f"{behaviors['num_rows']:,}, of a user " + ", ".join(
            f"{name} {value:,}" for name, value in events.items()
        )
    return facts


def _moment(time: int, unit: str) -> str:
    seconds = time / _UNITS[unit]
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time:,}"
    return moment.strftime("%Y-%m-%d %H:%M")


def _quantiles(values: IntArray) -> str:
    if len(values) == 0:
        return "none"
    marks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    found = np.quantile(values, list(marks.values()), method="higher")
    return ", ".join(f"{name} {int(value):,}" for name, value in zip(marks, found, strict=True))
