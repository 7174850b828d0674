"""Models trained with several seeds, compared on the same rows: which is better, and is it real?

Runs are measured one by one: replicate b of the bootstrap gives every user the same weight in every
run, so differences are paired although no two runs are in memory together.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ranker.metrics.bootstrap import MIN_CLUSTERS, cluster_index, poisson_bootstrap
from ranker.metrics.gauc import group_aucs, summarize
from ranker.metrics.resample import Resampler
from ranker.metrics.rows import Float64Array
from ranker.metrics.seeds import SeededMetric, seeded_difference, seeded_mean
from ranker.metrics.value import Interval, PairedDifference
from ranker.report.compare import ComparisonContext, sort_rows, verdict
from ranker.report.compared import COMPARED
from ranker.report.encoding import Json, adjust_p_values, difference_json, interval_json
from ranker.report.estimates import build_statistics, point_value
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class TaskMeasurement:
    """The compared metrics of one task of one run."""

    rows: int
    positives: int
    values: Mapping[str, float | None]
    reasons: Mapping[str, str]  # why a value is missing
    replicates: Mapping[str, Float64Array]  # [B] by metric, absent where there are none


@dataclass(frozen=True, kw_only=True)
class RunMeasurement:
    """Everything a comparison keeps of a run; `digest` tells runs of the same rows."""

    digest: str
    rows: int
    users: int
    tasks: Mapping[str, TaskMeasurement]


def measure_run(predictions: Predictions, *, num_replicates: int, seed: int) -> RunMeasurement:
    """Values and replicates of one run."""
    rows = sort_rows(predictions)
    digest = hashlib.sha256()
    for column in (rows.sample_id, rows.user, rows.group, rows.weight):
        digest.update(np.ascontiguousarray(column).tobytes())
    for name in sorted(rows.tasks):
        digest.update(np.nan_to_num(rows.tasks[name].label, nan=-1.0).tobytes())
    weighed = rows.weight > 0
    return RunMeasurement(
        digest=digest.hexdigest(),
        rows=int(np.count_nonzero(weighed)),
        users=int(np.unique(rows.user[weighed]).size),
        tasks={name: _measure_task(rows, name, num_replicates, seed) for name in rows.tasks},
    )


def _measure_task(
    predictions: Predictions, task: str, num_replicates: int, seed: int
) -> TaskMeasurement:
    # what is compared is the models, not the truth behind the labels
    rows = replace(task_rows(predictions, task, evaluation_mask(predictions, task)), truth=None)
    parts = group_aucs(rows.logits, rows.labels, rows.groups, rows.weights)
    grouped = summarize(parts)
    metrics = {name: point_value(name, rows, grouped) for name in COMPARED}
    index, num_users = cluster_index(rows.users)
    statistics = build_statistics(Resampler(rows, index, num_users), parts, COMPARED)
    replicates = (
        poisson_bootstrap(
            {name: statistics[name] for name in COMPARED if name in statistics},
            num_clusters=num_users,
            num_replicates=num_replicates,
            seed=seed,
        )
        if num_users >= MIN_CLUSTERS
        else {}
    )
    return TaskMeasurement(
        rows=rows.count,
        positives=rows.positives,
        values={name: metric.value for name, metric in metrics.items()},
        reasons={name: metric.reason for name, metric in metrics.items() if metric.reason},
        replicates=replicates,
    )


def compare_groups(
    groups: Mapping[str, Mapping[str, RunMeasurement]],
    context: ComparisonContext,
    *,
    reference: str | None = None,
) -> list[Json]:
    """One entry per task: every metric of every group, against the reference or the best group.

    Args:
        groups: by name, the runs of the group by name (its seeds).
        context: the level of the intervals; its baseline is not read.
        reference: the group that others are compared with; None takes the best by each metric and
            orders the groups by it.

    Raises:
        ValueError: the runs differ in samples, users, groups, weights or labels, or share no task.
    """
    runs = {name: run for group in groups.values() for name, run in group.items()}
    if not runs:
        raise ValueError("there is no run to compare")
    first_name, first = next(iter(runs.items()))
    for name, run in runs.items():
        if run.digest != first.digest:
            raise ValueError(
                f"{name} and {first_name} were not evaluated on the same rows: samples, users, "
                "groups, weights or labels differ; evaluate both on the same split of the same data"
            )
    tasks = [name for name in first.tasks if all(name in run.tasks for run in runs.values())]
    if not tasks:
        raise ValueError(f"{', '.join(runs)} share no task; compare runs with a task in common")
    return [_compare_task(groups, task, context, reference) for task in tasks]


def _compare_task(
    groups: Mapping[str, Mapping[str, RunMeasurement]],
    task: str,
    context: ComparisonContext,
    reference: str | None,
) -> Json:
    measured = {
        group: {name: run.tasks[task] for name, run in runs.items()}
        for group, runs in groups.items()
    }
    any_run = next(iter(next(iter(measured.values())).values()))
    return {
        "name": task,
        "rows": any_run.rows,
        "positives": any_run.positives,
        "metrics": [
            {"name": metric, **_compare_metric(measured, metric, context, reference)}
            for metric in COMPARED
        ],
    }


def _compare_metric(
    measured: Mapping[str, Mapping[str, TaskMeasurement]],
    metric: str,
    context: ComparisonContext,
    reference: str | None,
) -> Json:
    seeded = {group: _seeded(list(runs.values()), metric) for group, runs in measured.items()}
    means = {g: float(np.mean(values.values)) for g, values in seeded.items() if values is not None}
    best = reference
    if best is None and means:
        best = (max if COMPARED[metric] else min)(means, key=lambda group: means[group])
    entries = []
    for group, runs in measured.items():
        entry: Json = {
            "group": group,
            "runs": [{"run": name, "value": run.values[metric]} for name, run in runs.items()],
            "mean": means.get(group),
            "reason": next((run.reasons.get(metric) for run in runs.values()), None),
            "interval": None,
            "difference": None,
            "verdict": None,
        }
        mine, other = seeded[group], seeded.get(best or "")
        if mine is not None:
            entry["interval"] = interval_json(_mean_interval(mine, context.level))
        if mine is not None and other is not None and group != best:
            paired = _difference(mine, other, context.level)
            entry["difference"] = difference_json(paired)
            entry["verdict"] = verdict(paired.interval.low, paired.interval.high, COMPARED[metric])
        entries.append(entry)
    adjust_p_values(entries)
    if reference is None:
        sign = -1 if COMPARED[metric] else 1
        entries.sort(key=lambda entry: (entry["mean"] is None, sign * (entry["mean"] or 0)))
    return {"best": best, "groups": entries}


def _seeded(runs: Sequence[TaskMeasurement], metric: str) -> SeededMetric | None:
    values = [run.values[metric] for run in runs]
    if any(value is None for value in values):
        return None
    drawn = [run.replicates[metric] for run in runs if metric in run.replicates]
    replicates = np.stack(drawn) if len(drawn) == len(runs) else np.empty((0, 0))
    return SeededMetric(
        values=[float(value) for value in values if value is not None], replicates=replicates
    )


def _mean_interval(metric: SeededMetric, level: float) -> Interval:
    return seeded_mean(metric, level=level) if metric.replicates.size else _no_interval(level)


def _difference(mine: SeededMetric, other: SeededMetric, level: float) -> PairedDifference:
    if mine.replicates.size and other.replicates.size:
        return seeded_difference(mine, other, level=level)
    difference = float(np.mean(mine.values) - np.mean(other.values))
    return PairedDifference(difference=difference, interval=_no_interval(level), p_value=None)


def _no_interval(level: float) -> Interval:
    reason = f"users cannot be resampled (fewer than {MIN_CLUSTERS}, or groups span users)"
    return Interval(low=None, high=None, level=level, method="users and seeds", reason=reason)
