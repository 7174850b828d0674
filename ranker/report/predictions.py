"""predictions.parquet: one row per scored sample, all that an evaluation needs and no model.

sample_id user request group time domain   int64
weight                                     float64
label_<task>                               float32, null where the task's label is not defined
logit_<task>  p_<task>                     float32, p = sigmoid(logit)
truth_<task>                               float64, the simulator's probability (optional)
slice_<name>                               int64, a column to slice metrics by (optional)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.report.files import replace_file

IntArray = NDArray[np.int64]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

ID_COLUMNS = ("sample_id", "user", "request", "group", "time", "domain")

# p is written in float32 and may come from a sigmoid in lower precision
PROBABILITY_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class TaskPredictions:
    """What the model said about one task, and what happened."""

    label: Float32Array  # [n] 0 or 1, NaN where not defined (a conversion without a click)
    logit: Float32Array  # [n]
    probability: Float32Array  # [n]
    truth: Float64Array | None = None  # [n] true probability, where a simulator knows it


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Scored samples in columns; n rows in any order."""

    sample_id: IntArray
    user: IntArray
    request: IntArray
    group: IntArray  # what GAUC averages over: the user, or a request of the user
    time: IntArray
    domain: IntArray
    weight: Float64Array  # 0 leaves a row out of every metric
    tasks: Mapping[str, TaskPredictions]
    slices: Mapping[str, IntArray] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.sample_id)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Check and write; the file appears whole or not at all.

    Raises:
        ValueError: naming the column and the row that breaks the format.
    """
    _check(predictions, source=str(path))
    columns: dict[str, pa.Array] = {
        name: pa.array(getattr(predictions, name), type=pa.int64()) for name in ID_COLUMNS
    }
    columns["weight"] = pa.array(predictions.weight, type=pa.float64())
    for name, task in predictions.tasks.items():
        label = np.asarray(task.label)
        columns[f"label_{name}"] = pa.array(label, type=pa.float32(), mask=np.isnan(label))
        columns[f"logit_{name}"] = pa.array(task.logit, type=pa.float32())
        columns[f"p_{name}"] = pa.array(task.probability, type=pa.float32())
        if task.truth is not None:
            columns[f"truth_{name}"] = pa.array(task.truth, type=pa.float64())
    for name, values in predictions.slices.items():
        columns[f"slice_{name}"] = pa.array(values, type=pa.int64())
    with replace_file(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd", write_page_checksum=True)


def read_predictions(path: Path) -> Predictions:
    """Read and check a file of `write_predictions`, or one that another tool wrote in the format.

    Raises:
        ValueError: the file is damaged, lacks a column, or a value breaks the format.
    """
    try:
        # ParquetFile, not a data set: a missing column must not become nulls
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(
            f"{path} cannot be read as predictions: {error}; evaluate the run again"
        ) from error
    names = table.column_names
    tasks = [name.removeprefix("label_") for name in names if name.startswith("label_")]
    slices = [name.removeprefix("slice_") for name in names if name.startswith("slice_")]
    _check_names(names, tasks, slices, source=str(path))
    predictions = Predictions(
        **{name: _integers(table, name, path) for name in ID_COLUMNS},
        weight=_floats(table, "weight", np.float64, path),
        tasks={name: _read_task(table, name, path) for name in tasks},
        slices={name: _integers(table, f"slice_{name}", path) for name in slices},
    )
    _check(predictions, source=str(path))
    return predictions


def _read_task(table: pa.Table, name: str, path: Path) -> TaskPredictions:
    label = table.column(f"label_{name}").cast(pa.float32()).fill_null(np.nan)
    has_truth = f"truth_{name}" in table.column_names
    return TaskPredictions(
        label=label.to_numpy(),
        logit=_floats(table, f"logit_{name}", np.float32, path),
        probability=_floats(table, f"p_{name}", np.float32, path),
        truth=_floats(table, f"truth_{name}", np.float64, path) if has_truth else None,
    )


def _integers(table: pa.Table, name: str, path: Path) -> IntArray:
    column = table.column(name)
    if not pa.types.is_integer(column.type) or column.null_count:
        raise ValueError(
            f"{path}: column {name} is {column.type} with {column.null_count:,} nulls; "
            "it must be int64 without nulls"
        )
    return cast(IntArray, column.cast(pa.int64()).to_numpy())


def _floats(table: pa.Table, name: str, dtype: type[Any], path: Path) -> NDArray[Any]:
    column = table.column(name)
    if not pa.types.is_floating(column.type) or column.null_count:
        raise ValueError(
            f"{path}: column {name} is {column.type} with {column.null_count:,} nulls; "
            "it must be a float without nulls"
        )
    return cast(NDArray[Any], column.to_numpy().astype(dtype, copy=False))


def _check_names(names: list[str], tasks: list[str], slices: list[str], *, source: str) -> None:
    required = [*ID_COLUMNS, "weight"]
    optional = [f"slice_{name}" for name in slices]
    for task in tasks:
        required += [f"{kind}_{task}" for kind in ("label", "logit", "p")]
        optional.append(f"truth_{task}")
    missing = [name for name in required if name not in names]
    if missing or not tasks:
        raise ValueError(
            f"{source}: missing column {', '.join(missing) or 'label_<task>'}; "
            f"the file has {', '.join(names)}"
        )
    unknown = [name for name in names if name not in required and name not in optional]
    if unknown:
        raise ValueError(
            f"{source}: unknown column {', '.join(unknown)}; "
            "name a column to slice by slice_<name>, or drop it"
        )
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"{source}: column {', '.join(sorted(repeated))} appears twice; drop one")


def _check(predictions: Predictions, *, source: str) -> None:
    columns: dict[str, NDArray[Any]] = {
        name: getattr(predictions, name) for name in (*ID_COLUMNS, "weight")
    }
    for name, task in predictions.tasks.items():
        columns |= {f"label_{name}": task.label, f"logit_{name}": task.logit}
        columns[f"p_{name}"] = task.probability
        if task.truth is not None:
            columns[f"truth_{name}"] = task.truth
    columns |= {f"slice_{name}": values for name, values in predictions.slices.items()}
    for name, column in columns.items():
        if column.shape != (predictions.rows,):
            raise ValueError(
                f"{source}: column {name} has shape {column.shape}; "
                f"sample_id has {predictions.rows:,} rows"
            )
    weight = predictions.weight
    _require(np.isfinite(weight) & (weight >= 0), weight, "weight", "finite and >= 0", source)
    for name, task in predictions.tasks.items():
        _check_task(name, task, source)


def _check_task(name: str, task: TaskPredictions, source: str) -> None:
    label = task.label
    known = np.isnan(label) | (label == 0) | (label == 1)
    _require(known, label, f"label_{name}", "0, 1 or null", source)
    _require(np.isfinite(task.logit), task.logit, f"logit_{name}", "finite", source)
    # tanh neither overflows nor warns
    expected = 0.5 * (1 + np.tanh(0.5 * task.logit.astype(np.float64)))
    close = np.abs(expected - task.probability) <= PROBABILITY_TOLERANCE
    _require(close, task.probability, f"p_{name}", f"sigmoid(logit_{name})", source)
    in_range = (task.probability >= 0) & (task.probability <= 1)
    _require(in_range, task.probability, f"p_{name}", "in [0, 1]", source)
    if task.truth is not None:
        in_range = (task.truth >= 0) & (task.truth <= 1)
        _require(in_range, task.truth, f"truth_{name}", "in [0, 1]", source)


def _require(
    holds: NDArray[np.bool_], column: NDArray[Any], name: str, rule: str, source: str
) -> None:
    if not holds.all():
        row = int(holds.argmin())
        raise ValueError(
            f"{source}: {name}[{row}] is {column[row]}; it must be {rule}; "
            "look at how this row was scored"
        )
