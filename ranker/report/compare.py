"""Paired comparison of several predictions of the same rows: is the difference real?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ranker.metrics.bootstrap import (
    ClusterStatistic,
    cluster_index,
    paired_difference,
    percentile_interval,
    poisson_bootstrap,
)
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.gauc import group_aucs, summarize
from ranker.metrics.relative_improvement import relative_improvement
from ranker.metrics.resample import Resampler
from ranker.metrics.rows import Float64Array, IntArray
from ranker.metrics.value import PairedDifference
from ranker.report.compared import COMPARED
from ranker.report.encoding import (
    Json,
    adjust_p_values,
    difference_json,
    interval_json,
    metric_json,
)
from ranker.report.estimates import build_statistics, not_nested, point_value
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.files import replace_file
from ranker.report.html import render_comparison
from ranker.report.markdown import render_comparison_markdown
from ranker.report.predictions import ID_COLUMNS, Predictions, TaskPredictions

SCHEMA_VERSION = 1

# what the runs must agree on besides samples and labels
_SHARED = ("user", "group", "weight")


@dataclass(frozen=True, kw_only=True)
class ComparisonContext:
    """Words about a comparison, and how its intervals are made."""

    split: str
    baseline: str  # the run that the others are compared with
    created: str = ""
    level: float = 0.95
    num_replicates: int = 1000
    seed: int = 0


def compare_predictions(runs: Mapping[str, Predictions], context: ComparisonContext) -> Json:
    """Values of every run and paired differences to the baseline, task by task.

    All runs must have scored the same samples, in any order. Every replicate of the bootstrap gives
    all runs the same users, so what is common to the runs cancels in their difference. With several
    runs, p-values are also given corrected for the number of runs compared (`p_adjusted`).

    Raises:
        ValueError: the baseline is not among the runs, there is no second run, the runs share no
            task, or they differ in samples, labels, weights, users or groups.
    """
    if context.baseline not in runs or len(runs) < 2:
        raise ValueError(
            f"baseline {context.baseline} must be one of at least two runs; "
            f"got {', '.join(runs) or 'none'}"
        )
    names = [context.baseline, *(name for name in runs if name != context.baseline)]
    aligned = {name: sort_rows(runs[name]) for name in names}
    first = aligned[context.baseline]
    for name in names[1:]:
        _check_same_rows(context.baseline, first, name, aligned[name])
    tasks = [task for task in first.tasks if all(task in aligned[name].tasks for name in names)]
    if not tasks:
        raise ValueError(f"{', '.join(names)} share no task; compare runs with a task in common")
    return {
        "schema_version": SCHEMA_VERSION,
        "split": context.split,
        "created": context.created,
        "baseline": context.baseline,
        "runs": names,
        "rows": int(np.count_nonzero(first.weight > 0)),
        "users": int(np.unique(first.user[first.weight > 0]).size),
        "intervals": {
            "level": context.level,
            "replicates": context.num_replicates,
            "seed": context.seed,
        },
        "tasks": [_compare_task(aligned, task, context) for task in tasks],
    }


def write_comparison(directory: Path, comparison: Json) -> tuple[Path, Path]:
    """Write comparison.json, .md and .html, each whole or not at all.

    Returns:
        Paths of the JSON and of the page.
    """
    json_path, html_path = directory / "comparison.json", directory / "comparison.html"
    for path, text in (
        (json_path, json.dumps(comparison, indent=1, allow_nan=False, ensure_ascii=False) + "\n"),
        (directory / "comparison.md", render_comparison_markdown(comparison)),
        (html_path, render_comparison(comparison)),
    ):
        with replace_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return json_path, html_path


def _compare_task(
    aligned: Mapping[str, Predictions], task: str, context: ComparisonContext
) -> Json:
    mask = evaluation_mask(aligned[context.baseline], task)
    rows = {
        # what is compared is the models, not the truth behind the labels
        name: replace(task_rows(predictions, task, mask), truth=None)
        for name, predictions in aligned.items()
    }
    first = rows[context.baseline]
    index, num_users = cluster_index(first.users)
    statistics: dict[str, ClusterStatistic] = {}
    values = {}
    for position, scored in enumerate(rows.values()):
        values[position], found = _estimate(scored, index, num_users)
        statistics |= {f"{position} {name}": found[name] for name in COMPARED if name in found}
    replicates = poisson_bootstrap(
        statistics,
        num_clusters=num_users,
        num_replicates=context.num_replicates,
        seed=context.seed,
    )
    metrics = []
    for metric in COMPARED:
        entries = [
            _compare_metric(metric, run, position, values, replicates, num_users, context)
            for position, run in enumerate(rows)
        ]
        adjust_p_values(entries)
        metrics.append({"name": metric, "runs": entries})
    return {
        "name": task,
        "rows": first.count,
        "positives": first.positives,
        "metrics": metrics,
    }


def _estimate(
    rows: EvaluationRows, index: IntArray, num_users: int
) -> tuple[dict[str, Json], dict[str, ClusterStatistic]]:
    parts = group_aucs(rows.logits, rows.labels, rows.groups, rows.weights)
    grouped = summarize(parts)
    values = {name: metric_json(point_value(name, rows, grouped)) for name in COMPARED}
    return values, build_statistics(Resampler(rows, index, num_users), parts, COMPARED)


def _compare_metric(
    metric: str,
    run: str,
    position: int,
    values: Mapping[int, Mapping[str, Json]],
    replicates: Mapping[str, Float64Array],
    num_users: int,
    context: ComparisonContext,
) -> Json:
    """One run: its value with an interval, and its difference to the baseline at position 0."""
    value, baseline = values[position][metric], values[0][metric]["value"]
    entry: Json = {"run": run, **value, "difference": None, "verdict": None}
    if metric == "auc":
        entry["relative_improvement"] = None
    if value["value"] is None or baseline is None:
        return entry
    drawn, drawn_baseline = (replicates.get(f"{of} {metric}") for of in (position, 0))
    if drawn is None or drawn_baseline is None:
        entry["interval"] = interval_json(not_nested(context.level))
        paired = PairedDifference(
            difference=value["value"] - baseline,
            interval=not_nested(context.level),
            p_value=None,
        )
    else:
        entry["interval"] = interval_json(
            percentile_interval(drawn, num_clusters=num_users, level=context.level)
        )
        paired = paired_difference(
            value["value"],
            baseline,
            drawn,
            drawn_baseline,
            num_clusters=num_users,
            level=context.level,
        )
    if position > 0:
        entry["difference"] = difference_json(paired)
        entry["verdict"] = verdict(paired.interval.low, paired.interval.high, COMPARED[metric])
        if metric == "auc":
            entry["relative_improvement"] = relative_improvement(value["value"], baseline)
    return entry


def verdict(low: float | None, high: float | None, more_is_better: bool) -> str | None:
    """What the interval of a difference allows to say."""
    if low is None or high is None:
        return None
    if low <= 0 <= high:
        return "no difference shown"
    return "better" if (low > 0) == more_is_better else "worse"


def sort_rows(predictions: Predictions) -> Predictions:
    """Rows by sample_id."""
    order = np.argsort(predictions.sample_id, kind="stable")
    if bool((order == np.arange(len(order))).all()):
        return predictions
    return replace(
        predictions,
        **{name: getattr(predictions, name)[order] for name in (*ID_COLUMNS, "weight")},
        tasks={name: _sort_task(task, order) for name, task in predictions.tasks.items()},
        slices={name: values[order] for name, values in predictions.slices.items()},
    )


def _sort_task(task: TaskPredictions, order: IntArray) -> TaskPredictions:
    return TaskPredictions(
        label=task.label[order],
        logit=task.logit[order],
        probability=task.probability[order],
        truth=None if task.truth is None else task.truth[order],
    )


def _check_same_rows(name: str, first: Predictions, other: str, second: Predictions) -> None:
    if not np.array_equal(first.sample_id, second.sample_id):
        shared = np.intersect1d(first.sample_id, second.sample_id).size
        raise ValueError(
            f"{name} has {first.rows:,} samples and {other} has {second.rows:,}, of which "
            f"{shared:,} are shared; evaluate both on the same split of the same data"
        )
    pairs = {column: (getattr(first, column), getattr(second, column)) for column in _SHARED}
    for task in first.tasks.keys() & second.tasks.keys():
        pairs[f"label_{task}"] = (first.tasks[task].label, second.tasks[task].label)
    for column, (left, right) in pairs.items():
        differ = (left != right) & ~(np.isnan(left) & np.isnan(right))
        if differ.any():
            row = int(differ.argmax())
            raise ValueError(
                f"{name} and {other} differ in {column} at sample_id {first.sample_id[row]} "
                f"({left[row]} and {right[row]}), {int(differ.sum()):,} rows in all; "
                "evaluate both on the same data"
            )
