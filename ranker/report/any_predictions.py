"""Predictions of any system: a Parquet file whose columns are named by the one who asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.report.predictions import (
    Float32Array,
    Float64Array,
    IntArray,
    Predictions,
    TaskPredictions,
    read_predictions,
)

# a probability of 0 or 1 has no finite logit
SMALLEST = 1e-7


@dataclass(frozen=True, kw_only=True)
class TaskColumns:
    """Where one task is in the file.

    Attributes:
        label: column with 0, 1, true, false, or null where the label is not defined.
        probability: column with the predicted probability.
        logit: column with the logit; give it instead of `probability`, or besides it.
        truth: column with the true probability, where a simulator knows it.
    """

    label: str
    probability: str | None = None
    logit: str | None = None
    truth: str | None = None

    def __post_init__(self) -> None:
        if self.probability is None and self.logit is None:
            raise ValueError("give the column of the probability or of the logit")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where everything is in the file.

    Attributes:
        tasks: by name; empty reads a file of scripts/evaluate.py, where nothing else applies.
        user: column of the user, whose rows are resampled together; texts are fine.
        group: column that GAUC averages over; null takes the user.
        request: column of rows shown together; null takes the group.
        sample_id: column with the identity of the row; null numbers the rows.
        domain: column of the domain; null is one domain.
        time: integer column; null is 0.
        weight: column of the weight; null is 1.
        slices: further columns to slice by; texts are fine.
    """

    tasks: Mapping[str, TaskColumns] = field(default_factory=dict)
    user: str | None = None
    group: str | None = None
    request: str | None = None
    sample_id: str | None = None
    domain: str | None = None
    time: str | None = None
    weight: str | None = None
    slices: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class NamedPredictions:
    """Predictions, and what the values of slice columns that held texts are called."""

    predictions: Predictions
    value_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def read_any_predictions(path: Path, columns: Columns) -> NamedPredictions:
    """Reads a file of `write_predictions`, or any other with the columns named.

    Raises:
        ValueError: naming the column that is absent or holds what it must not.
    """
    if not columns.tasks:
        return NamedPredictions(predictions=read_predictions(path))
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
    reader = _Reader(path, table)
    rows = table.num_rows
    user, _ = reader.ids(_required(columns.user))
    group = reader.ids(columns.group)[0] if columns.group else user
    request = reader.ids(columns.request)[0] if columns.request else group
    coded = {name: reader.ids(name) for name in columns.slices}
    domain, domain_names = (
        reader.ids(columns.domain) if columns.domain else (np.zeros(rows, dtype=np.int64), {})
    )
    predictions = Predictions(
        sample_id=reader.ids(columns.sample_id)[0] if columns.sample_id else np.arange(rows),
        user=user,
        group=group,
        request=request,
        domain=domain,
        time=reader.ids(columns.time)[0] if columns.time else np.zeros(rows, dtype=np.int64),
        weight=reader.floats(columns.weight) if columns.weight else np.ones(rows),
        tasks={name: reader.task(task) for name, task in columns.tasks.items()},
        slices={name: values for name, (values, _) in coded.items()},
    )
    names = {"domain": domain_names} | {name: texts for name, (_, texts) in coded.items()}
    return NamedPredictions(
        predictions=predictions,
        value_names={name: texts for name, texts in names.items() if texts},
    )


class _Reader:
    """Columns of one table; errors name the file and the column."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self.path, self.table = path, table

    def column(self, name: str) -> pa.ChunkedArray:
        if name not in self.table.column_names:
            raise ValueError(
                f"{self.path} has no column {name!r}; it has {', '.join(self.table.column_names)}"
            )
        return self.table.column(name)

    def ids(self, name: str) -> tuple[IntArray, dict[int, str]]:
        """Integers as they are; texts as codes in the order of the texts, with their names."""
        column = self._full(name)
        if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
            return column.cast(pa.int64()).to_numpy(), {}
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise ValueError(
                f"{self.path}: column {name} is {column.type}; ids and slices must be integers or "
                "texts; cut a number into ranges first"
            )
        texts, codes = np.unique(column.to_numpy(zero_copy_only=False), return_inverse=True)
        return codes.astype(np.int64), {code: str(text) for code, text in enumerate(texts)}

    def floats(self, name: str) -> Float64Array:
        column = self._full(name)
        try:
            return np.asarray(column.cast(pa.float64()).to_numpy())
        except pa.ArrowException as error:
            raise ValueError(
                f"{self.path}: column {name} is {column.type}; it must hold numbers"
            ) from error

    def task(self, columns: TaskColumns) -> TaskPredictions:
        if columns.logit is not None:
            logit = self.floats(columns.logit)
            self._check(columns.logit, logit, np.isfinite(logit), "finite")
        if columns.probability is not None:
            chance = self.floats(columns.probability)
            inside = (chance >= 0) & (chance <= 1)
            self._check(columns.probability, chance, inside, "in [0, 1]; a score is not one")
        if columns.logit is None:
            clipped = np.clip(chance, SMALLEST, 1 - SMALLEST)
            logit = np.log(clipped) - np.log1p(-clipped)
        if columns.probability is None:
            chance = 0.5 * (1 + np.tanh(0.5 * logit))
        truth = None
        if columns.truth is not None:
            truth = self.floats(columns.truth)
            self._check(columns.truth, truth, (truth >= 0) & (truth <= 1), "in [0, 1]")
        return TaskPredictions(
            label=self._label(columns.label),
            logit=logit.astype(np.float32),
            probability=chance.astype(np.float32),
            truth=truth,
        )

    def _label(self, name: str) -> Float32Array:
        column = self.column(name)
        try:
            label = column.cast(pa.float32())
        except pa.ArrowException as error:
            raise ValueError(
                f"{self.path}: column {name} is {column.type}; a label must be 0, 1 or null"
            ) from error
        values: Float32Array = pc.fill_null(label, np.nan).to_numpy()
        known = np.isnan(values) | (values == 0) | (values == 1)
        self._check(name, values, known, "0, 1 or null")
        return values

    def _full(self, name: str) -> pa.ChunkedArray:
        column = self.column(name)
        if column.null_count:
            raise ValueError(
                f"{self.path}: column {name} has {column.null_count:,} nulls; only labels may be "
                "null"
            )
        return column

    def _check(self, name: str, values: NDArray[Any], holds: NDArray[np.bool_], rule: str) -> None:
        if not holds.all():
            row = int(holds.argmin())
            raise ValueError(f"{self.path}: {name}[{row}] is {values[row]}; it must be {rule}")


def _required(user: str | None) -> str:
    if user is None:
        raise ValueError(
            "columns.user is missing; name the column whose rows belong together "
            "(intervals resample it)"
        )
    return user
