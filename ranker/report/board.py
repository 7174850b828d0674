"""What TensorBoard shows of an evaluation: PR curves, histograms, hyperparameters with results."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ranker.report.encoding import Json
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.predictions import Float32Array, IntArray, Predictions
from ranker.report.redaction import redact

SHOWN = ("auc", "gauc", "normalized_entropy", "logloss", "pcoc", "expected_calibration_error")


def write_evaluation_summary(
    directory: Path,
    predictions: Predictions,
    report: Json,
    *,
    step: int,
    config: Mapping[str, Any],
    vectors: Mapping[str, tuple[IntArray, Float32Array]] | None = None,
) -> Path:
    """Writes `directory`/evaluation-<split>, in place of what an earlier evaluation left there.

    Args:
        directory: the TensorBoard folder of the run.
        predictions: that the report was made from.
        report: of `build_report`.
        step: of the checkpoint.
        config: of the run; its scalars become hyperparameters.
        vectors: by table, ids [n] and their vectors [n, D], for the embedding projector.

    Returns:
        The folder written.
    """
    folder = directory / f"evaluation-{report['split']}"
    # an evaluation leaves nothing else there
    shutil.rmtree(folder, ignore_errors=True)
    results: dict[str, float] = {}
    with SummaryWriter(str(folder)) as writer:
        for task in report["tasks"]:
            name = task["name"]
            for metric in SHOWN:
                value = task["metrics"][metric]["value"]
                if value is not None:
                    results[f"{report['split']}/{name}.{metric}"] = value
            _write_task(writer, predictions, name, step)
        for tag, value in results.items():
            writer.add_scalar(tag, value, step)
        # not add_hparams, which would open a second run below this one
        summaries: Any = hparams(hyperparameters(config), results)  # type: ignore[no-untyped-call]
        for summary in summaries:
            writer.file_writer.add_summary(summary)
        for table, (ids, rows) in (vectors or {}).items():
            writer.add_embedding(rows, metadata=ids.tolist(), tag=table, global_step=step)
    return folder


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """The scalars of a nested config by their path, lists as text, secrets redacted."""
    found: dict[str, bool | int | float | str] = {}

    def visit(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                visit(item, f"{path}.{key}" if path else str(key))
        elif isinstance(value, bool | int | float | str):
            found[path] = value
        elif isinstance(value, list):
            found[path] = ", ".join(map(str, value))

    visit(redact(config), "")
    return found


def _write_task(writer: SummaryWriter, predictions: Predictions, task: str, step: int) -> None:
    rows = task_rows(predictions, task, evaluation_mask(predictions, task))
    if rows.count == 0:
        return
    writer.add_pr_curve(f"{task}/precision_recall", rows.labels, rows.probabilities, step)
    for name, picked in (("positives", rows.labels), ("negatives", ~rows.labels)):
        if np.any(picked):
            writer.add_histogram(f"{task}/logit of {name}", rows.logits[picked], step)
