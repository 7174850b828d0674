"""The page of a sweep, and that of runs compared in groups: which is better, and is it real?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ranker.report.compare import ComparisonContext
from ranker.report.compared import COMPARED
from ranker.report.encoding import Json
from ranker.report.files import replace_file
from ranker.report.groups import RunMeasurement, compare_groups
from ranker.report.html import render_groups
from ranker.report.importance import explained_shares
from ranker.report.markdown import render_groups_markdown
from ranker.report.pareto import pareto_front
from ranker.report.wording import p_value

SCHEMA_VERSION = 1

# more groups than this are counted in the summary, not named
MAX_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class SweptPoint:
    """One point of a sweep; `measurement` is there exactly when it finished."""

    name: str
    group: str  # the point without its seed
    values: Mapping[str, str]
    state: str  # "finished", "failed" or "pruned"
    reason: str
    seconds: float
    measurement: RunMeasurement | None = None


@dataclass(frozen=True, kw_only=True)
class SweepContext:
    """Words about a sweep, and what decides it.

    `objective` and both entries of `pareto` are task.metric.
    """

    name: str
    objective: str
    pareto: Sequence[str]
    comparison: ComparisonContext
    fixed: Sequence[str] = field(default_factory=tuple)


def build_group_comparison(
    measured: Mapping[str, Mapping[str, RunMeasurement]],
    tasks: Sequence[Json],
    context: ComparisonContext,
) -> Json:
    """The comparison of groups of runs as the dictionary of its page; tasks of `compare_groups`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "title": ", ".join(measured),
        "kind": "comparison",
        **_shared(measured, context),
        "baseline": context.baseline,
        "summary": [_verdict_of(task, "gauc") for task in tasks],
        "tasks": list(tasks),
        "sweep": None,
    }


def build_sweep_report(points: Sequence[SweptPoint], context: SweepContext) -> Json:
    """Everything that sweep.html shows, as the dictionary that sweep.json stores.

    Points that differ in the seed only are one group. A pure function of its arguments.

    Raises:
        ValueError: the finished points were not evaluated on the same rows, or lack the objective.
    """
    groups: dict[str, dict[str, RunMeasurement]] = {}
    for point in points:
        if point.measurement is not None:
            groups.setdefault(point.group, {})[point.name] = point.measurement
    tasks = compare_groups(groups, context.comparison) if groups else []
    if groups:
        tasks = _objective_first(tasks, context.objective)
    return {
        "schema_version": SCHEMA_VERSION,
        "title": context.name,
        "kind": "sweep",
        **_shared(groups, context.comparison),
        "baseline": None,
        "summary": [_verdict_of(tasks[0], _split(context.objective)[1])] if tasks else [],
        "tasks": tasks,
        "sweep": {
            "objective": context.objective,
            "fixed": list(context.fixed),
            "points": [_point_json(point, context.objective) for point in points],
            **_over_points(points, context),
        },
    }


def write_groups(directory: Path, name: str, comparison: Json) -> tuple[Path, Path]:
    """Write `name`.json, .md and .html, each whole or not at all.

    Returns:
        Paths of the JSON and of the page.
    """
    json_path, html_path = directory / f"{name}.json", directory / f"{name}.html"
    for path, text in (
        (json_path, json.dumps(comparison, indent=1, allow_nan=False, ensure_ascii=False) + "\n"),
        (directory / f"{name}.md", render_groups_markdown(comparison)),
        (html_path, render_groups(comparison)),
    ):
        with replace_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return json_path, html_path


def _shared(groups: Mapping[str, Mapping[str, RunMeasurement]], context: ComparisonContext) -> Json:
    any_run = next((run for runs in groups.values() for run in runs.values()), None)
    return {
        "split": context.split,
        "created": context.created,
        "rows": any_run.rows if any_run else 0,
        "users": any_run.users if any_run else 0,
        "groups": {name: list(runs) for name, runs in groups.items()},
        "intervals": {
            "level": context.level,
            "replicates": context.num_replicates,
            "seed": context.seed,
        },
    }


def _split(target: str) -> tuple[str, str]:
    task, _, metric = target.partition(".")
    return task, metric


def _value(point: SweptPoint, target: str) -> float | None:
    task, metric = _split(target)
    if point.measurement is None or task not in point.measurement.tasks:
        return None
    return point.measurement.tasks[task].values[metric]


def _objective_first(tasks: Sequence[Json], objective: str) -> list[Json]:
    """Tasks and metrics ordered so that what decides comes first."""
    name, metric = _split(objective)
    known = [task["name"] for task in tasks]
    if name not in known:
        raise ValueError(
            f"objective is {objective!r}, but the points predict {', '.join(known)}; set "
            "sweep.objective=<task>.<metric>"
        )
    ordered = sorted(tasks, key=lambda task: task["name"] != name)
    return [
        task | {"metrics": sorted(task["metrics"], key=lambda entry: entry["name"] != metric)}
        for task in ordered
    ]


def _point_json(point: SweptPoint, objective: str) -> Json:
    return {
        "name": point.name,
        "group": point.group,
        "values": dict(point.values),
        "state": point.state,
        "reason": point.reason,
        "seconds": point.seconds,
        "objective": _value(point, objective),
    }


def _over_points(points: Sequence[SweptPoint], context: SweepContext) -> Json:
    """What is shown of single points: importance of the keys, and the Pareto front of groups."""
    done = [point for point in points if _value(point, context.objective) is not None]
    shares = explained_shares(
        [point.values for point in done],
        [value for point in done if (value := _value(point, context.objective)) is not None],
    )
    means = _means(done, context.pareto)
    more = tuple(COMPARED[_split(target)[1]] for target in context.pareto)
    front = pareto_front(list(means.values()), (more[0], more[1]))
    names = list(means)
    return {
        "explained": dict(sorted(shares.items(), key=lambda item: -item[1])),
        "pareto": {
            "metrics": list(context.pareto),
            "groups": {name: list(values) for name, values in means.items()},
            "front": [names[index] for index in front],
        },
    }


def _means(points: Sequence[SweptPoint], targets: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Means over seeds of two metrics by group, of groups that have both."""
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        first, second = (_value(point, target) for target in targets)
        if first is not None and second is not None:
            found.setdefault(point.group, []).append((first, second))
    return {
        group: (float(np.mean(values, axis=0)[0]), float(np.mean(values, axis=0)[1]))
        for group, values in found.items()
    }


def _verdict_of(task: Json, metric: str) -> str:
    """Which group is best by a metric, and whether that is shown, in plain words."""
    entry = next(entry for entry in task["metrics"] if entry["name"] == metric)
    best = entry["best"]
    title = f"{task['name']}, {metric}"
    if best is None:
        return f"{title}: no group has a value."
    row = next(group for group in entry["groups"] if group["group"] == best)
    others = [group for group in entry["groups"] if group["difference"] is not None]
    runs = len(row["runs"])
    text = f"{title}: {best} has {row['mean']:.4f}"
    text += f" (mean of {runs} runs)" if runs > 1 else " (one run)"
    if not others:
        return text + "; there is nothing to compare it with."
    parts = []
    for found in ("better", "worse"):
        shown = [group for group in others if group["verdict"] == found]
        if len(shown) > MAX_NAMED:
            parts.append(f"{len(shown)} groups are {found}")
        else:
            parts += [_shown(group, found, several=len(others) > 1) for group in shown]
    unclear = [g["group"] for g in others if g["verdict"] not in ("better", "worse")]
    if len(unclear) > MAX_NAMED:
        parts.append(f"no difference is shown to {len(unclear)} groups")
    elif unclear:
        parts.append(f"no difference is shown to {', '.join(unclear)}")
    return f"{text}; {'; '.join(parts)}."


def _shown(group: Json, found: str, *, several: bool) -> str:
    """A difference that is shown, with its interval, and whether it stays so among several."""
    difference = group["difference"]
    low, high = sorted(abs(difference["interval"][end]) for end in ("low", "high"))
    text = f"{group['group']} is {found} by {abs(difference['difference']):.4f}"
    text += f" ({difference['interval']['level']:.0%} interval {low:.4f} to {high:.4f}, "
    text += f"p {_probability(difference['p_value'])}"
    if several:
        text += f", {_probability(difference['p_adjusted'])} after correction"
    return text + ")"


def _probability(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"
