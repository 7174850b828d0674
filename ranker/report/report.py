"""report.json, .md and .html: the evaluation of a predictions file, without the model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ranker.report.baseline import build_baseline
from ranker.report.compare import ComparisonContext
from ranker.report.constraints import last_constraints
from ranker.report.context import ReportContext, TaskContext
from ranker.report.correction import correct_sampling
from ranker.report.curves import build_curves
from ranker.report.data_facts import describe_rows
from ranker.report.encoding import Json
from ranker.report.entire_space import build_entire_space
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.feasibility import describe_held_out, held_out_constraints
from ranker.report.files import replace_file
from ranker.report.html import render_html
from ranker.report.markdown import render_markdown
from ranker.report.measure import ALL_METRICS, measure
from ranker.report.predictions import Predictions
from ranker.report.remarks import find_remarks
from ranker.report.slices import build_slices, cut_slices
from ranker.report.summary import summarize_task
from ranker.report.training import training_series
from ranker.report.worst import find_worst

SCHEMA_VERSION = 1


def build_report(predictions: Predictions, context: ReportContext) -> Json:
    """Everything that report.html shows, as the dictionary that report.json stores.

    Undefined numbers are None beside the reason. A pure function of its arguments.

    Raises:
        ValueError: a task of the context is not in the predictions.
    """
    names = [task.name for task in context.tasks]
    absent = [name for name in names if name not in predictions.tasks]
    if absent or not names:
        raise ValueError(
            f"context.tasks names {', '.join(absent) or 'no task'}; "
            f"the predictions have {', '.join(predictions.tasks)}"
        )
    predictions = correct_sampling(predictions, context.negative_sampling_rates)
    weighed = predictions.weight > 0
    report: Json = {
        "schema_version": SCHEMA_VERSION,
        "run": context.run,
        "split": context.split,
        "created": context.created,
        "rows": int(np.count_nonzero(weighed)),
        "users": int(np.unique(predictions.user[weighed]).size),
        "groups": int(np.unique(predictions.group[weighed]).size),
        "intervals": {
            "level": context.level,
            "replicates": context.num_replicates,
            "seed": context.seed,
        },
        "tasks": [_build_task(predictions, task, context) for task in context.tasks],
        "baseline": _baseline(predictions, context),
        "training": training_series(context.records),
        "constraints": last_constraints(context.records),
        "held_out": held_out_constraints(context.records, context.environment.get("checkpoint")),
        "search": [dict(search) for search in context.search],
        "data": describe_rows(predictions, time_unit=context.time_unit) | dict(context.data),
        "config": context.config,
        "environment": dict(context.environment),
    }
    parts = [f"{task['name']}: {task['summary']}" for task in report["tasks"]]
    if report["baseline"]:
        parts.append(f"Against {report['baseline']['run']}: {report['baseline']['summary']}")
    parts += [describe_held_out(constraint) for constraint in report["held_out"]]
    report["summary"] = " ".join(parts)
    return report


def write_report(directory: Path, report: Json) -> tuple[Path, Path]:
    """Write report.json, report.md and report.html, each whole or not at all.

    Returns:
        Paths of the JSON and of the page.
    """
    json_path, html_path = directory / "report.json", directory / "report.html"
    for path, text in (
        (json_path, json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n"),
        (directory / "report.md", render_markdown(report)),
        (html_path, render_html(report)),
    ):
        with replace_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return json_path, html_path


def _build_task(predictions: Predictions, task: TaskContext, context: ReportContext) -> Json:
    mask = evaluation_mask(predictions, task.name)
    rows = task_rows(predictions, task.name, mask)
    measured = measure(rows, context, names=ALL_METRICS, further=context.metrics)
    tables = cut_slices(predictions, task.name, context)
    weighed = int(np.count_nonzero(predictions.weight > 0))
    section = {
        "name": task.name,
        "description": task.description,
        "space": _space(task, rows.count, weighed),
        "rows": rows.count,
        "positives": rows.positives,
        "negative_sampling_rate": context.negative_sampling_rates.get(task.name),
        "positive_rate": rows.positives / rows.count if rows.count else None,
        "weighted": rows.weights is not None,
        "remarks": find_remarks(rows, measured["metrics"]),
        **measured,
        "curves": build_curves(rows, num_bins=context.num_bins),
        "entire_space": build_entire_space(predictions, task.name, context),
        "slices": build_slices(predictions, task.name, tables, context),
        "worst": find_worst(
            predictions, task.name, tables, measured["metrics"]["auc"]["value"], context
        ),
    }
    return section | {"summary": summarize_task(section)}


def _baseline(predictions: Predictions, context: ReportContext) -> Json | None:
    baseline = context.baseline
    if baseline is None:
        return None
    # the same correction for both, or their probabilities would differ by it
    corrected = correct_sampling(baseline.predictions, context.negative_sampling_rates)
    name = baseline.run if baseline.run != context.run else f"{baseline.run} (baseline)"
    comparison = ComparisonContext(
        split=context.split,
        baseline=name,
        level=context.level,
        num_replicates=context.num_replicates,
        seed=context.seed,
    )
    return build_baseline(
        predictions,
        replace(baseline, run=name, predictions=corrected),
        run=context.run,
        context=comparison,
    )


def _space(task: TaskContext, rows: int, weighed: int) -> str:
    """Which rows the task is evaluated on, in words."""
    if task.condition:
        return f"rows with {task.condition}: {rows:,} of {weighed:,}"
    if rows == weighed:
        return f"all {rows:,} rows"
    return f"rows where the label is defined: {rows:,} of {weighed:,}"
