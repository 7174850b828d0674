"""The rows of a comparison: value, difference and its interval on one common line."""

from collections.abc import Sequence
from dataclasses import dataclass

from ranker.report.encoding import Json

FOREST_WIDTH = 220

TITLES = {
    "auc": "AUC",
    "gauc": "GAUC",
    "normalized_entropy": "Normalised entropy",
    "logloss": "Logloss",
    "brier": "Brier score",
}


@dataclass(frozen=True, kw_only=True)
class Whisker:
    """A difference and its interval, in pixels of FOREST_WIDTH; `zero` is no difference."""

    value: float
    low: float
    high: float
    zero: float


@dataclass(frozen=True, kw_only=True)
class Forest:
    """One metric of all runs or groups, every whisker on the same scale.

    `best` is the group that the others are compared with.
    """

    title: str
    best: str | None
    runs: Sequence[tuple[Json, Whisker | None]]


def forests(task: Json) -> list[Forest]:
    """One forest per metric of a compared task."""
    return [
        Forest(title=TITLES[metric["name"]], best=None, runs=_whiskers(metric["runs"]))
        for metric in task["metrics"]
    ]


def group_forests(task: Json) -> list[Forest]:
    """One forest per metric of a task of `compare_groups`; its runs are groups."""
    return [
        Forest(title=TITLES[metric["name"]], best=metric["best"], runs=_whiskers(metric["groups"]))
        for metric in task["metrics"]
    ]


def _whiskers(runs: Sequence[Json]) -> list[tuple[Json, Whisker | None]]:
    drawn = [
        run
        for run in runs
        if run["difference"] and run["difference"]["interval"]["low"] is not None
    ]
    ends = [0.0]
    for run in drawn:
        interval = run["difference"]["interval"]
        ends += [interval["low"], interval["high"], run["difference"]["difference"]]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def position(value: float) -> float:
        return round((value - low) / span * FOREST_WIDTH, 1)

    def whisker(run: Json) -> Whisker:
        interval = run["difference"]["interval"]
        return Whisker(
            value=position(run["difference"]["difference"]),
            low=position(interval["low"]),
            high=position(interval["high"]),
            zero=position(0.0),
        )

    return [(run, whisker(run) if run in drawn else None) for run in runs]
