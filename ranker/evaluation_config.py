"""Checks the configurations of evaluation, report and comparison, and builds what they name."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranker.config import build_train_job
from ranker.config_reader import FIRST_PARTY_ROOTS, ConfigReader
from ranker.evaluate_run import EvaluationOptions
from ranker.job import TrainJob
from ranker.metrics.evaluation import RowMetric
from ranker.project_run import ProjectOptions
from ranker.report.any_predictions import Columns, TaskColumns
from ranker.report.data_report import DoctorJob
from ranker.report.feature_report import RankJob
from ranker.report.from_file import ReportOptions
from ranker.report.from_runs import CompareOptions
from ranker.run_dir import RunDir
from ranker_data.doctor.findings import DoctorOptions


def build_evaluation(
    config: Mapping[str, Any],
) -> tuple[TrainJob, EvaluationOptions, dict[str, RowMetric]]:
    """Checks a plain evaluation config, and builds the job from the config that the run saved.

    Returns:
        The job, what to evaluate, and the further metrics by the name they are shown under.

    Raises:
        ConfigError: lists every problem found.
    """
    reader = ConfigReader(_group(config, "evaluation", "plugins", "report"))
    options = reader.section("evaluation", EvaluationOptions)
    metrics = _read_metrics(reader)
    reader.raise_errors()
    saved = RunDir(Path(options.run)).read_config()
    # a saved config is data: only packages named on this command line may be imported
    saved["plugins"] = config.get("plugins", [])
    if options.dataset_path is not None:
        saved["dataset"]["path"] = options.dataset_path
    if options.batch_size is not None:
        saved["loader"]["batch_size"] = options.batch_size
    return build_train_job(saved), options, metrics


def build_projection(config: Mapping[str, Any]) -> tuple[TrainJob, ProjectOptions]:
    """Checks a plain config of scripts/project_items.py, and builds the job of the run.

    Raises:
        ConfigError: lists every problem found.
    """
    reader = ConfigReader(_group(config, "projection", "plugins"))
    options = reader.section("projection", ProjectOptions)
    reader.raise_errors()
    saved = RunDir(Path(options.run)).read_config()
    # a saved config is data: only packages named on this command line may be imported
    saved["plugins"] = config.get("plugins", [])
    return build_train_job(saved), options


def build_report_job(
    config: Mapping[str, Any],
) -> tuple[ReportOptions, Columns, dict[str, RowMetric]]:
    """Checks a plain config of scripts/report.py.

    Raises:
        ConfigError: lists every problem found.
    """
    reader = ConfigReader(_group(config, "options", "plugins", "report", "columns", "tasks"))
    options = reader.section("options", ReportOptions)
    columns = reader.section("columns", Columns)
    tasks = {
        str(name): reader.section(f"tasks.{name}", TaskColumns)
        for name in reader.value("tasks", dict[str, Any], {})
    }
    metrics = _read_metrics(reader)
    reader.raise_errors()
    return options, dataclasses.replace(columns, tasks=tasks), metrics


def build_comparison(config: Mapping[str, Any]) -> CompareOptions:
    """Checks a plain config of scripts/compare.py.

    Raises:
        ConfigError: lists every problem found.
    """
    reader = ConfigReader({"compare": config})
    options = reader.section("compare", CompareOptions)
    reader.raise_errors()
    assert isinstance(options, CompareOptions)
    return options


def build_doctor_job(config: Mapping[str, Any]) -> DoctorJob:
    """Checks a plain config of scripts/doctor.py.

    Raises:
        ConfigError: lists every problem found.
    """
    reader = ConfigReader(_group(config, "options", "data", "out"))
    data, out = reader.value("data", str), reader.value("out", str | None, None)
    options = reader.section("options", DoctorOptions)
    reader.raise_errors()
    return DoctorJob(data=Path(data), out=Path(out) if out else None, options=options)


def build_rank_job(config: Mapping[str, Any]) -> RankJob:
    """Checks a plain config of scripts/rank_features.py.

    Raises:
        ConfigError: lists every problem found.
    """
    reader = ConfigReader(config)
    reader.check_keys(("data", "out", "split", "max_rows"))
    data, out = reader.value("data", str), reader.value("out", str | None, None)
    split, max_rows = reader.value("split", str), reader.value("max_rows", int | None, None)
    reader.raise_errors()
    return RankJob(data=Path(data), out=Path(out) if out else None, split=split, max_rows=max_rows)


def _group(config: Mapping[str, Any], name: str, *others: str) -> dict[str, Any]:
    """The config with all keys but `others` moved below `name`."""
    rest = {key: value for key, value in config.items() if key not in others}
    return {name: rest} | {key: config[key] for key in others if key in config}


def _read_metrics(reader: ConfigReader) -> dict[str, RowMetric]:
    """Builds the metrics of the report group: name -> class with its arguments."""
    roots = (*FIRST_PARTY_ROOTS, *reader.value("plugins", list[str], []))
    reader.check_keys(("metrics",), "report")
    metrics = {}
    for name in reader.value("report.metrics", dict[str, Any], {}):
        path = f"report.metrics.{name}"
        build = reader.factory(path, roots, RowMetric, set())
        if not reader.errors:
            try:
                metrics[str(name)] = build()
            except ValueError as error:
                reader.errors.append(f"{path}: {error}")
    return metrics
