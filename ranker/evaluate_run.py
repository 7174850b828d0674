"""Evaluates a trained run: predictions, report and cards of one split."""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ranker.checkpoint import (
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    verify_checkpoint,
)
from ranker.distributed import process_group
from ranker.evaluate import predict
from ranker.job import TrainJob
from ranker.logging import read_records
from ranker.metrics.evaluation import RowMetric
from ranker.report.board import write_evaluation_summary
from ranker.report.context import ReportContext, TaskContext
from ranker.report.derived import DERIVED
from ranker.report.predictions import Predictions, write_predictions
from ranker.report.redaction import redact
from ranker.report.report import build_report, write_report
from ranker.report.run_cards import read_stats, write_cards
from ranker.run_dir import RunDir
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
            of the samples, or count.<field> (how often the row's value occurs in the split).
        negative_sampling_rates: by task, the share of negatives that training kept, to correct the
            probabilities for in the report; predictions.parquet stays as the model made it.
    """

    run: str
    split: str = "test"
    checkpoint: str | int = "best"
    dataset_path: str | None = None
    batch_size: int | None = None
    num_replicates: int = 400
    slices: list[str] = dataclasses.field(default_factory=list)
    negative_sampling_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.split not in ("train", "valid", "test"):
            raise ValueError(f"split is {self.split!r}; must be train, valid or test")
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
    with process_group(job.trainer.device, job.trainer.timeout_seconds) as process:
        loader = job.build_loader(options.split, process, shuffle=False)
        path = _choose_checkpoint(run, options.checkpoint)
        trainable = job.build_trainable(process.device)
        load_checkpoint(path, trainable)
        predictions = predict(trainable.model, loader, job.schema, process.device, options.slices)
        if predictions is not None:
            folder = run.evaluation(options.split)
            write_predictions(folder / "predictions.parquet", predictions)
            context = _context(run, job, options, path, predictions, metrics)
            report = build_report(predictions, context)
            _, page = write_report(folder, report)
            write_cards(folder, report, job.schema, read_stats(job.data_root))
            write_evaluation_summary(
                run.path / "tensorboard",
                predictions,
                report,
                step=int(path.name.removeprefix("step-")),
                config=job.config,
            )
            print(f"{report['summary']}\nreport: {page}")


def _choose_checkpoint(run: RunDir, wanted: str | int) -> Path:
    newest, _ = find_checkpoint(run.checkpoints)
    if newest is None:
        raise CheckpointError(f"{run.path} has no checkpoint; train the run first")
    step = wanted
    if wanted == "best":
        step = json.loads((newest / "state.json").read_text())["progress"]["best_step"]
    if wanted == "last" or step is None:
        return newest
    path = run.checkpoints / f"step-{step:08d}"
    if not path.is_dir():
        kept = ", ".join(p.name for p in list_checkpoints(run.checkpoints))
        raise CheckpointError(f"{run.path} has no checkpoint of step {step}; it keeps {kept}")
    problem = verify_checkpoint(path)
    if problem is not None:
        raise CheckpointError(f"{problem}; choose another one with checkpoint=last or a step")
    return path


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
        value_names=_value_names(job.schema),
        negative_sampling_rates=options.negative_sampling_rates,
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
