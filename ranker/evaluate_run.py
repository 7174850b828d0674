"""Evaluates a trained run: predictions, report and cards of one split."""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ranker.checkpoint import choose_checkpoint, load_checkpoint
from ranker.distributed import process_group
from ranker.evaluate import predict
from ranker.job import TrainJob
from ranker.logging import read_records
from ranker.metrics.evaluation import RowMetric
from ranker.projections import use_projections
from ranker.report.baseline import Baseline, config_changes
from ranker.report.board import hyperparameters, write_evaluation_summary
from ranker.report.context import ReportContext, TaskContext
from ranker.report.data_facts import describe_training_data
from ranker.report.derived import DERIVED, unseen_names
from ranker.report.predictions import Predictions, read_predictions, write_predictions
from ranker.report.redaction import redact
from ranker.report.report import build_report, write_report
from ranker.report.run_cards import read_stats, write_cards
from ranker.report.search import read_search
from ranker.run_dir import RunDir
from ranker.search_quality import watch_searches, write_search_quality
from ranker.table_rows import sample_rows
from ranker.train_module import ranking_model
from ranker_data.schema import Schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What to evaluate.

    Attributes:
        run: directory of the run.
        split: "train", "valid" or "test".
        checkpoint: "best" (by the run's monitored metric), "last", or a step.
        dataset_path: another copy of the prepared data; null takes the run's.
        batch_size: rows of a global batch; null takes the run's.
        num_replicates: bootstrap replicates behind the intervals.
        slices: what to slice by besides domain and history length: user_activity, hour, an id field
            of the samples, count.<field> (how often the row's value occurs in the split),
            train_count.<field> (in training) or age.<field> (hours since it was first seen).
        negative_sampling_rates: by task, the share of negatives that training kept, to correct the
            probabilities for in the report; predictions.parquet stays as the model made it.
        projections: folder of scripts/project_items.py; TWIN searches in it, and not in vectors
            projected with the checkpoint's own weights.
        baseline: directory of another run, evaluated on the same split: the report tells what
            changed against it.
        projector_tables: tables to show in TensorBoard's embedding projector.
        projector_rows: at most so many rows of each, drawn at random.
    """

    run: str
    split: str = "test"
    checkpoint: str | int = "best"
    dataset_path: str | None = None
    batch_size: int | None = None
    num_replicates: int = 400
    slices: list[str] = dataclasses.field(default_factory=list)
    negative_sampling_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    projections: str | None = None
    baseline: str | None = None
    projector_tables: list[str] = dataclasses.field(default_factory=list)
    projector_rows: int = 2000

    def __post_init__(self) -> None:
        if self.split not in ("train", "valid", "test"):
            raise ValueError(f"split is {self.split!r}; must be train, valid or test")
        if self.projector_rows < 1:
            raise ValueError(f"projector_rows is {self.projector_rows}; give at least 1")
        if isinstance(self.checkpoint, str) and self.checkpoint not in ("best", "last"):
            raise ValueError(f"checkpoint is {self.checkpoint!r}; must be best, last or a step")


def evaluate_run(
    job: TrainJob, options: EvaluationOptions, metrics: Mapping[str, RowMetric]
) -> None:
    """Scores a split with a checkpoint of a run, writes predictions, report and cards.

    Args:
        job: built from the run's own config.
        options: what to evaluate.
        metrics: further ones by the name they are shown under.

    Raises:
        CheckpointError: the run has no such checkpoint, or it is damaged.
    """
    run = RunDir(Path(options.run))
    baseline = _read_baseline(options, job)
    with process_group(job.trainer.device, job.trainer.timeout_seconds) as process:
        loader = job.build_loader(options.split, process, shuffle=False)
        path = choose_checkpoint(run.checkpoints, options.checkpoint)
        trainable = job.build_trainable(process.device)
        load_checkpoint(path, trainable)
        vectors = {
            table: sample_rows(trainable.model, table, max_rows=options.projector_rows)
            for table in options.projector_tables
        }
        model = ranking_model(trainable.model)
        if options.projections is not None:
            use_projections(model, Path(options.projections), job.schema)
        qualities = watch_searches(model)
        predictions = predict(
            trainable.model,
            loader,
            job.schema,
            process.device,
            options.slices,
            data_root=job.data_root,
        )
        folder = run.evaluation(options.split)
        write_search_quality(folder, qualities)
        if predictions is not None:
            write_predictions(folder / "predictions.parquet", predictions)
            context = dataclasses.replace(
                _context(run, job, options, path, predictions, metrics),
                search=read_search(folder) if qualities else (),
                baseline=baseline,
            )
            report = build_report(predictions, context)
            _, page = write_report(folder, report)
            write_cards(folder, report, job.schema, read_stats(job.data_root))
            write_evaluation_summary(
                run.path / "tensorboard",
                predictions,
                report,
                step=int(path.name.removeprefix("step-")),
                config=job.config,
                vectors={table: rows for table, rows in vectors.items() if rows is not None},
            )
            print(f"{report['summary']}\nreport: {page}")


def _read_baseline(options: EvaluationOptions, job: TrainJob) -> Baseline | None:
    """Read before anything is scored, so that a missing one costs nothing."""
    if options.baseline is None:
        return None
    other = RunDir(Path(options.baseline))
    path = other.evaluation(options.split) / "predictions.parquet"
    if not path.is_file():
        raise ValueError(
            f"baseline={options.baseline} has no predictions of split {options.split}; run "
            f"scripts/evaluate.py run={options.baseline} split={options.split} first"
        )
    return Baseline(
        run=other.path.resolve().name,
        predictions=read_predictions(path),
        changes=config_changes(hyperparameters(other.read_config()), hyperparameters(job.config)),
    )


def _context(
    run: RunDir,
    job: TrainJob,
    options: EvaluationOptions,
    checkpoint: Path,
    predictions: Predictions,
    metrics: Mapping[str, RowMetric],
) -> ReportContext:
    environment: Mapping[str, Any] = json.loads((run.path / "env.json").read_text())
    facts = {"checkpoint": checkpoint.name, "dataset": job.schema.name, **environment}
    return ReportContext(
        run=run.path.resolve().name,
        split=options.split,
        tasks=[
            TaskContext(
                name=task.name,
                description=task.label,
                condition=f"{task.condition} = 1" if task.condition else "",
            )
            for task in job.schema.tasks
            if task.name in predictions.tasks
        ],
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        config=yaml.safe_dump(redact(dict(job.config)), sort_keys=False),
        environment={key: _text(value) for key, value in facts.items()},
        records=read_records(run.metrics),
        metrics=metrics,
        categories=tuple(f.name for f in job.schema.fields if f.name not in DERIVED),
        value_names={**_value_names(job.schema), **unseen_names(options.slices)},
        negative_sampling_rates=options.negative_sampling_rates,
        data=describe_training_data(read_stats(job.data_root), time_unit=job.schema.time_unit),
        time_unit=job.schema.time_unit,
        num_replicates=options.num_replicates,
    )


def _value_names(schema: Schema) -> dict[str, dict[int, str]]:
    if schema.domain is None or not schema.domain_names:
        return {}
    names = dict(enumerate(schema.domain_names))
    return {"domain": names, schema.domain: names}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "unknown" if value is None else str(value)
