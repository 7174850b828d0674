"""Headline cards and the table of metrics of one task."""

from dataclasses import dataclass
from typing import Any

from ranker.report.encoding import Json
from ranker.report.wording import MISSING, between, decimal, percent

GAUGE_WIDTH = 200


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """An interval on a line from `left` to `right`; positions in pixels of GAUGE_WIDTH."""

    left: str
    right: str
    value: float
    low: float | None
    high: float | None
    mark: float | None  # what the value is compared with
    best: float | None  # the true probabilities


@dataclass(frozen=True, kw_only=True)
class Card:
    """One headline number."""

    title: str
    value: str
    interval: str
    note: str
    gauge: Gauge | None


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One line of the table of metrics."""

    title: str
    meaning: str
    value: str
    reason: str  # why there is no value
    interval: str


# metric, title, note, range of the gauge and the mark on it
_HEADLINES = (
    ("auc", "AUC", "0.5 is a random order, 1 is perfect", (0.5, 1.0), 0.5),
    ("gauc", "GAUC", "", (0.5, 1.0), 0.5),
    ("normalized_entropy", "Normalised entropy", "below 1 beats the mean rate", (0.5, 1.0), 1.0),
    ("pcoc", "PCOC", "predicted over observed, 1 is ideal", (0.5, 1.5), 1.0),
)

_TABLE = (
    ("auc", "AUC", "share of positive-negative pairs in the right order, ties count half"),
    ("gauc", "GAUC", "AUC inside each group, weighted by impressions"),
    ("average_precision", "PR-AUC", "average precision; a random order scores the positive rate"),
    ("logloss", "Logloss", "mean negative log-likelihood, in nats"),
    ("normalized_entropy", "Normalised entropy", "logloss over that of the mean rate"),
    ("relative_information_gain", "RIG", "1 - normalised entropy"),
    ("pcoc", "PCOC", "sum of predictions over sum of labels"),
    ("expected_calibration_error", "ECE", "mean gap to the observed rate, bins of equal mass"),
    ("brier", "Brier score", "mean squared error of the probability"),
)


def headline_cards(task: Json) -> list[Card]:
    """The four numbers to read first."""
    return [
        _card(task, name, title, note or _gauc_note(task["metrics"]["gauc"]), span, mark)
        for name, title, note, span, mark in _HEADLINES
    ]


def metric_rows(task: Json) -> list[MetricRow]:
    """Every metric of a task; variants of AUC and GAUC follow their main form."""
    rows = []
    for name, title, meaning in _TABLE:
        metric = task["metrics"][name]
        rows.append(_row(title, meaning, metric))
        if name == "auc" and "delong" in metric:
            rows.append(
                MetricRow(
                    title="AUC, DeLong",
                    meaning="the interval if all rows were independent of each other",
                    value=decimal(metric["value"]),
                    reason="",
                    interval=between(metric["delong"]),
                )
            )
        if name == "gauc":
            rows.append(_row("GAUC, uniform", "every group counts once", metric["uniform"]))
            rows.append(
                _row("GAUC, by positives", "weighted by positives", metric["positive_weighted"])
            )
    return rows + [_row(name, "", metric) for name, metric in task["more"].items()]


def _card(
    task: Json, name: str, title: str, note: str, span: tuple[float, float], mark: float
) -> Card:
    metric = task["metrics"][name]
    if metric["value"] is None:
        return Card(title=title, value=MISSING, interval=metric["reason"], note=note, gauge=None)
    best = task["bayes"] and task["bayes"].get(name)
    interval = metric["interval"]
    text = between(interval)
    if interval is not None and interval["low"] is not None:
        text = f"{interval['level']:.0%} interval {text}"
    return Card(
        title=title,
        value=decimal(metric["value"]),
        interval=text,
        note=note,
        gauge=_gauge(metric, best["value"] if best else None, span, mark),
    )


def _gauge(metric: Json, best: float | None, span: tuple[float, float], mark: float) -> Gauge:
    interval = metric["interval"] or {"low": None, "high": None}
    shown = [value for value in (metric["value"], best, *interval.values()) if _is_number(value)]
    low, high = min(span[0], *shown), max(span[1], *shown)

    def position(value: float | None) -> float | None:
        return None if value is None else round((value - low) / (high - low) * GAUGE_WIDTH, 1)

    value = position(metric["value"])
    assert value is not None
    return Gauge(
        left=f"{low:.2g}",
        right=f"{high:.2g}",
        value=value,
        low=position(interval["low"]),
        high=position(interval["high"]),
        mark=position(mark),
        best=position(best),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, float)


def _gauc_note(gauc: Json) -> str:
    used = 1 - gauc["skipped_groups_fraction"] if gauc["num_groups"] else None
    rows = 1 - gauc["skipped_rows_fraction"] if gauc["num_groups"] else None
    groups = f"{percent(used)} of {gauc['num_groups']:,} groups"
    return f"{groups} have both classes, {percent(rows)} of the rows"


def _row(title: str, meaning: str, metric: Json) -> MetricRow:
    return MetricRow(
        title=title,
        meaning=meaning,
        value=decimal(metric["value"]),
        reason=metric["reason"] or "",
        interval=between(metric["interval"]),
    )
