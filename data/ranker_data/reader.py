"""Reads the Parquet files of a prepared data set and checks every value that training relies on.

Each error names the file, the column, the first bad row and value, the rule and the remedy. Files
are read with page checksums verified, because a flipped bit in a page otherwise reads as data.
"""

import dataclasses
import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker_data.columns import Array, Column, Ragged, from_arrow, plain
from ranker_data.layout import (
    BEHAVIOR_KEYS,
    behaviors_arrow_schema,
    samples_arrow_schema,
    weights_column,
)
from ranker_data.schema import Field, Schema, Table


class DataError(ValueError):
    """Data that breaks the contract of its schema."""


@dataclasses.dataclass(frozen=True)
class PartSize:
    """What the footer of a file says.

    Attributes:
        num_rows: rows.
        num_values: column of lists -> number of values in all its lists, or a few more (an empty
            list may count as one).
    """

    num_rows: int
    num_values: Mapping[str, int]


def list_parts(folder: Path) -> list[Path]:
    """Returns the part files of a folder in order.

    Raises:
        DataError: the folder is missing or has no parts, or part numbers are not 0, 1, 2, ...
    """
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise DataError(f"{folder} has no part-*.parquet files; prepare the data set again")
    expected = [f"part-{i:05d}.parquet" for i in range(len(paths))]
    names = [path.name for path in paths]
    if names != expected:
        missing = next((e for e, n in zip(expected, names, strict=True) if e != n), expected[-1])
        raise DataError(f"{folder}: {missing} is missing; parts must be numbered without gaps")
    return paths


def check_footers(paths: Sequence[Path], expected: pa.Schema) -> list[PartSize]:
    """Checks files and columns without reading any row, and returns the sizes.

    Raises:
        DataError: lists every bad file, not only the first.
    """
    problems, sizes = [], []
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                problems += column_problems(path, file.schema_arrow, expected)
                sizes.append(PartSize(file.metadata.num_rows, _num_values(file, expected)))
        except (OSError, pa.ArrowInvalid) as error:
            problems.append(f"{path} is not a readable Parquet file ({error})")
    if problems:
        listed = "\n  ".join(problems)
        raise DataError(f"{len(problems)} problem(s) in {len(paths)} data files:\n  {listed}")
    return sizes


def _num_values(file: pq.ParquetFile, expected: pa.Schema) -> dict[str, int]:
    counts = {field.name: 0 for field in expected if pa.types.is_list(field.type)}
    for group in range(file.metadata.num_row_groups if counts else 0):
        columns = file.metadata.row_group(group)
        for i in range(columns.num_columns):
            column = columns.column(i)
            # <name>.list.element
            name = column.path_in_schema.rsplit(".", 2)[0]
            if name in counts:
                counts[name] += column.num_values
    return counts


def column_problems(path: Path, found: pa.Schema, expected: pa.Schema) -> list[str]:
    """Returns what is wrong with a file's columns; further columns do no harm."""
    problems = []
    for field in expected:
        if found.names.count(field.name) > 1:
            problems.append(f"{path}: column {field.name!r} is there twice")
        elif field.name not in found.names:
            close = difflib.get_close_matches(field.name, found.names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            problems.append(f"{path}: column {field.name!r} is missing{hint}")
        elif not _widens(found.field(field.name).type, field.type):
            actual = found.field(field.name).type
            problems.append(
                f"{path}: column {field.name!r} has type {actual}, must be {field.type}; cast "
                "it when preparing"
            )
    return problems


def _widens(actual: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether `wanted` can represent every value of `actual`."""
    if pa.types.is_list(wanted) or pa.types.is_list(actual):
        both = pa.types.is_list(wanted) and pa.types.is_list(actual)
        return both and _widens(actual.value_type, wanted.value_type)
    if pa.types.is_int64(wanted):
        return pa.types.is_integer(actual) and not pa.types.is_uint64(actual)
    if pa.types.is_float32(wanted):
        return actual in (pa.float32(), pa.float16(), pa.bool_(), pa.int8(), pa.uint8(), pa.int16())
    return bool(actual == wanted) or (pa.types.is_float64(wanted) and pa.types.is_floating(actual))


def read_columns(path: Path, expected: pa.Schema) -> dict[str, Column]:
    """Reads the expected columns of one file.

    Raises:
        DataError: the file is damaged, or a column that must not have nulls has some.
    """
    try:
        table = pq.read_table(
            path,
            columns=expected.names,
            page_checksum_verification=True,
            use_threads=False,
            partitioning=None,
        )
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read ({error}); prepare the data set again") from error
    columns = {}
    for field in expected:
        array = table[field.name].cast(field.type)
        if array.null_count and not field.nullable:
            row = pc.index(array.is_null(), True).as_py()
            raise DataError(
                f"{path}: column {field.name!r}, row {row} is null; this column must have a value"
            )
        if pa.types.is_floating(field.type):
            _check_not_nan(path, field.name, array)
        # converted, a null among integers would be a NaN
        if pa.types.is_list(field.type) and pc.list_flatten(array).null_count:
            raise DataError(
                f"{path}: column {field.name!r} has a null in a list; leave it out, or use id 0"
            )
        columns[field.name] = from_arrow(array)
    return columns


def _check_not_nan(path: Path, name: str, array: pa.ChunkedArray) -> None:
    # true nulls are legal where the column is nullable; NaN never is
    row = pc.index(pc.is_nan(array), True).as_py()
    if row >= 0:
        raise DataError(
            f"{path}: column {name!r}, row {row} is NaN; use null for an undefined label"
        )


def read_samples(
    path: Path, schema: Schema, moved: Counter[str] | None = None
) -> dict[str, Column]:
    """Reads and checks one samples file; `moved` is as in `check_ids`."""
    columns = read_columns(path, samples_arrow_schema(schema))
    check_ids(path, columns, schema.fields, schema, moved)
    for field in schema.fields:
        if field.weighted:
            _check_weights(path, columns, field)
    for label in schema.labels:
        values = plain(columns[label.name])
        defined = ~np.isnan(values)
        bad = defined & (values != 0) & (values != 1)
        _check(path, label.name, values, bad, "a label must be 0, 1 or null")
        if label.requires is not None:
            required = plain(columns[label.requires])
            bad = (values == 1) & (required != 1)
            _check(path, label.name, values, bad, f"it may be 1 only where {label.requires!r} is 1")
    weight = plain(columns["weight"])
    _check(
        path,
        "weight",
        weight,
        (weight < 0) | np.isinf(weight),
        "a weight must be finite and not negative",
    )
    _check_sorted(path, plain(columns["user"]), plain(columns["time"]))
    return columns


def read_behaviors(
    path: Path, schema: Schema, moved: Counter[str] | None = None
) -> dict[str, Column]:
    """Reads and checks one behaviours file; `moved` is as in `check_ids`."""
    columns = read_columns(path, behaviors_arrow_schema(schema))
    check_ids(path, columns, schema.behaviors, schema, moved)
    _check_sorted(path, plain(columns["user"]), plain(columns["time"]))
    return columns


def read_event_keys(path: Path, schema: Schema) -> dict[str, Column]:
    """Reads and checks user and time of one behaviours file."""
    expected = behaviors_arrow_schema(schema)
    keys = pa.schema([expected.field(name) for name in BEHAVIOR_KEYS])
    columns = read_columns(path, keys)
    _check_sorted(path, plain(columns["user"]), plain(columns["time"]))
    return columns


def check_ids(
    path: Path,
    columns: dict[str, Column],
    fields: Sequence[Field],
    schema: Schema,
    moved: Counter[str] | None = None,
) -> None:
    """Checks that ids are in the range of their table and dense values are finite.

    Args:
        path: the file.
        columns: of the file; ids that a table's `out_of_range` allows are moved into its range.
        fields: to check.
        schema: of the data set.
        moved: gets the number of moved ids of every field that has some.
    """
    for field in fields:
        column = columns[field.name]
        values = column.values if isinstance(column, Ragged) else column
        if field.table is not None and schema.table(field.table).out_of_range != "error":
            columns[field.name], count = _moved_into_range(column, schema.table(field.table))
            if moved is not None and count:
                moved[field.name] += count
            continue
        if field.table is None:
            _check(path, field.name, values, ~np.isfinite(values), "a dense value must be finite")
            continue
        size = schema.table(field.table).num_embeddings
        if size is None:
            rule = f"ids of table {field.table!r}, which has no vocabulary, must not be negative"
            _check(path, field.name, values, values < 0, rule)
            continue
        rule = (
            f"ids of table {field.table!r} must be in [0, {size}); "
            "raise its num_embeddings, or set its out_of_range to oov or hash"
        )
        _check(path, field.name, values, (values < 0) | (values >= size), rule)


def _moved_into_range(column: Column, table: Table) -> tuple[Column, int]:
    """Gives ids that the table does not have id 0, or the id of another value; and counts them."""
    values = column.values if isinstance(column, Ragged) else column
    size = table.num_embeddings
    outside = values < 0 if size is None else (values < 0) | (values >= size)
    count = int(outside.sum())
    if not count:
        return column, 0
    # the remainder of a negative number is not negative either
    other = 1 + values % (size - 1) if table.out_of_range == "hash" and size is not None else 0
    moved = np.where(outside, other, values)
    return (Ragged(column.offsets, moved) if isinstance(column, Ragged) else moved), count


def _check_weights(path: Path, columns: dict[str, Column], field: Field) -> None:
    name = weights_column(field)
    ids, weights = columns[field.name], columns[name]
    assert isinstance(ids, Ragged)
    assert isinstance(weights, Ragged)
    rule = f"every id of {field.name!r} needs one weight"
    lengths = weights.lengths
    _check(path, name, lengths, lengths != ids.lengths, rule)
    bad = (weights.values < 0) | ~np.isfinite(weights.values)
    _check(path, name, weights.values, bad, "a weight must be finite and not negative")


def _check_sorted(path: Path, user: Array, time: Array) -> None:
    same = user[1:] == user[:-1]
    bad = (user[1:] < user[:-1]) | (same & (time[1:] < time[:-1]))
    if bad.any():
        row = int(np.argmax(bad)) + 1
        raise DataError(f"{path}: row {row} is out of order; rows must be sorted by (user, time)")


def _check(path: Path, name: str, values: Array, bad: Array, rule: str) -> None:
    if bad.any():
        index = int(np.argmax(bad))
        count = int(bad.sum())
        raise DataError(
            f"{path}: column {name!r}, value {index} is {values[index]} ({count} such "
            f"value(s)): {rule}"
        )
