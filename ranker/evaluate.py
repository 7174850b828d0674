"""Scores a split with a model: every row once, in an order that no rank count changes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ranker.budget import BehaviorBudget
from ranker.distributed import broadcast_from_main, gather_to_main
from ranker.metrics.auc import auc
from ranker.metrics.calibration import expected_calibration_error, pcoc
from ranker.metrics.gauc import gauc
from ranker.metrics.logloss import logloss, normalized_entropy
from ranker.report.derived import add_slices, field_of, trained_field_of
from ranker.report.predictions import Predictions, TaskPredictions
from ranker_data.batch import RankingBatch
from ranker_data.layout import truth_columns
from ranker_data.loader import RankingLoader
from ranker_data.schema import Schema, Task
from ranker_data.seen import SeenIds, read_seen_ids

Columns = dict[str, NDArray[Any]]

# no other column of a prediction has a dot
FIELD_PREFIX = "field."


def predict(
    model: nn.Module,
    loader: RankingLoader,
    schema: Schema,
    device: torch.device,
    slices: Sequence[str] = (),
    data_root: Path | None = None,
    after_batch: Callable[[], None] = lambda: None,
) -> Predictions | None:
    """Scores the loader's split in evaluation mode; every rank calls it.

    Args:
        model: returns the loss, its parts and the logits of a batch.
        loader: of the split.
        schema: of the data.
        device: of the model.
        slices: columns to slice by besides the history's length, see `add_slices`; a field must be
            an id field of a sample.
        data_root: of the prepared data, for slices by what training saw.
        after_batch: called after each batch; may raise, on all ranks alike, to stop.

    Returns:
        On rank 0 all rows, sorted by sample id, with the tasks that the model predicts; a task's
        label is NaN outside its space. None on other ranks.
    """
    model.eval()
    fields = _slice_fields(schema, slices)
    budget = BehaviorBudget(schema, loader.max_behaviors)
    pieces = []
    with torch.no_grad():
        for whole in loader.batches():
            for batch in budget(whole):
                # labels and ids are read from the batch on the host
                _, _, logits = model(batch.to(device, non_blocking=True))
                columns = _columns(batch, logits, schema) | _fields(batch, schema, fields)
                # a view would keep all memory that the batch lies in until the end of the split
                pieces.append({name: column.copy() for name, column in columns.items()})
            after_batch()
    local = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    gathered = gather_to_main(local)
    if gathered is None:
        return None
    columns = {name: np.concatenate([rank[name] for rank in gathered]) for name in local}
    # rows of padding have no identity
    order = np.argsort(columns["sample_id"], kind="stable")
    order = order[columns["sample_id"][order] >= 0]
    ordered = {name: column[order] for name, column in columns.items()}
    values = {field: ordered[FIELD_PREFIX + field] for field in fields}
    return add_slices(
        _to_predictions(ordered, schema),
        slices,
        fields=values,
        time_unit=schema.time_unit,
        seen=_read_seen(data_root, schema, slices),
    )


def _read_seen(data_root: Path | None, schema: Schema, slices: Sequence[str]) -> dict[str, SeenIds]:
    fields = {field for name in slices if (field := trained_field_of(name)) is not None}
    if not fields:
        return {}
    assert data_root is not None
    return {field: read_seen_ids(data_root, schema, field) for field in sorted(fields)}


def _slice_fields(schema: Schema, slices: Sequence[str]) -> list[str]:
    """The fields that the slices need; ValueError for one that is no id field of a sample."""
    known = [field.name for field in schema.fields if field.kind == "id"]
    fields = sorted({field for name in slices if (field := field_of(name)) is not None})
    for field in fields:
        if field not in known:
            raise ValueError(
                f"slices names {field!r}; give user_activity, hour, or an id field of the samples "
                f"({', '.join(known)}), or count.<field> for how often its value occurs, "
                "train_count.<field> for how often in training, age.<field> for the hours since it "
                "was first seen"
            )
    return fields


def _fields(batch: RankingBatch, schema: Schema, names: Sequence[str]) -> Columns:
    """Ids of single-valued fields, one per candidate [C]."""
    users = {field.name for field in schema.fields_of("user")}
    columns: Columns = {}
    for name in names:
        values = batch.ids[name].values()
        columns[FIELD_PREFIX + name] = (values[batch.user_of] if name in users else values).numpy()
    return columns


def _columns(batch: RankingBatch, logits: Mapping[str, Tensor], schema: Schema) -> Columns:
    columns: Columns = {
        "sample_id": batch.sample_id.numpy(),
        "user": batch.user.numpy(),
        "request": batch.request.numpy(),
        "time": batch.time.numpy(),
        "domain": batch.domain.numpy(),
        "weight": batch.weights.double().numpy(),
        "history_length": (batch.windows[:, 1] - batch.windows[:, 0]).numpy(),
    }
    truths = truth_columns(schema)
    for task in schema.tasks:
        if task.name not in logits:
            continue
        columns[f"label_{task.name}"] = _task_label(batch, schema, task)
        columns[f"logit_{task.name}"] = logits[task.name].float().cpu().numpy()
        if task.truth is not None:
            columns[f"truth_{task.name}"] = batch.truths[:, truths.index(task.truth)].numpy()
    return columns


def _to_predictions(columns: Columns, schema: Schema) -> Predictions:
    return Predictions(
        sample_id=columns["sample_id"],
        user=columns["user"],
        request=columns["request"],
        group=columns[schema.group],
        time=columns["time"],
        domain=columns["domain"],
        weight=columns["weight"],
        tasks={
            task.name: TaskPredictions(
                label=columns[f"label_{task.name}"],
                logit=columns[f"logit_{task.name}"],
                probability=_sigmoid(columns[f"logit_{task.name}"]),
                truth=columns.get(f"truth_{task.name}"),
            )
            for task in schema.tasks
            if f"logit_{task.name}" in columns
        },
        slices={"history_length": columns["history_length"]},
    )


def _sigmoid(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    return torch.sigmoid(torch.from_numpy(logit).double()).float().numpy()


def _task_label(batch: RankingBatch, schema: Schema, task: Task) -> NDArray[np.float32]:
    """Returns the label [C], NaN where it is undefined or the task's condition does not hold."""
    names = [label.name for label in schema.labels]
    column = names.index(task.label)
    defined = batch.label_mask[:, column] > 0
    if task.condition is not None:
        condition = names.index(task.condition)
        defined &= (batch.label_mask[:, condition] * batch.labels[:, condition]) > 0
    label = torch.where(defined, batch.labels[:, column], torch.nan)
    return label.numpy()


def compute_scores(predictions: Predictions | None) -> dict[str, float | None]:
    """Computes the headline metrics of each task on its own space; None where one is undefined.

    Args:
        predictions: from `predict`: on rank 0, None elsewhere.

    Returns:
        `task.metric` to value, on every rank.
    """
    scores = None
    if predictions is not None:
        scores = {
            f"{task}.{name}": value
            for task in predictions.tasks
            for name, value in _task_scores(predictions, task).items()
        }
    result: dict[str, float | None] = broadcast_from_main(scores)
    return result


def _task_scores(predictions: Predictions, name: str) -> dict[str, float | None]:
    task = predictions.tasks[name]
    rows = ~np.isnan(task.label)
    label, logit, probability = task.label[rows], task.logit[rows], task.probability[rows]
    weight = predictions.weight[rows]
    # without weights AUC counts in integers
    weights = None if (weight == 1).all() else weight
    values = {
        "auc": auc(logit, label, weights),
        "gauc": gauc(logit, label, predictions.group[rows], weights).impressions,
        "logloss": logloss(logit, label, weights),
        "ne": normalized_entropy(logit, label, weights),
        "pcoc": pcoc(probability, label, weights),
        "ece": expected_calibration_error(probability, label, weights),
    }
    return {name: metric.value for name, metric in values.items()}
