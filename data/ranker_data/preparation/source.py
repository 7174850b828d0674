"""The raw events and samples that a preparation reads: Parquet files or an Arrow table."""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ranker_data.reader import DataError

RawData: TypeAlias = pa.Table | Path | Sequence[Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A raw relation.

    Attributes:
        name: "events" or "samples"; the SQL relation is called `raw_events` or `raw_samples`.
        columns: SQL type of every column.
        located: a FROM clause whose rows also have `_file` and `_row`, to name a bad value's place.
        num_rows: number of rows.
    """

    name: str
    columns: dict[str, str]
    located: str
    num_rows: int

    def first_rows(
        self, connection: duckdb.DuckDBPyConnection, columns: str, condition: str
    ) -> list[tuple[Any, ...]]:
        """Returns (file, row, *columns) of the first three rows that meet a condition."""
        rows = f"SELECT _file, _row, {columns} FROM {self.located} WHERE {condition}"
        return connection.execute(f"{rows} ORDER BY 1, 2 LIMIT 3").fetchall()


def open_source(connection: duckdb.DuckDBPyConnection, name: str, data: RawData) -> Source:
    """Makes raw data known to the engine as the relation `raw_<name>`.

    Args:
        connection: the engine.
        name: "events" or "samples".
        data: an Arrow table, a Parquet file, a folder of Parquet files, or a list of Parquet files.

    Raises:
        DataError: there are no files, or some cannot be read (all of them are listed).
    """
    relation = f"raw_{name}"
    if isinstance(data, pa.Table):
        connection.register(relation, data)
        place = "'<arrow table>' AS _file, row_number() OVER () - 1 AS _row"
        located = f"(SELECT *, {place} FROM {relation})"
        num_rows = data.num_rows
    else:
        paths = _list_files(name, data)
        num_rows = _check_files(name, paths)
        files = ", ".join(quote_text(str(path)) for path in paths)
        connection.execute(f"CREATE VIEW {relation} AS SELECT * FROM read_parquet([{files}])")
        located = (
            "(SELECT * EXCLUDE (filename, file_row_number), filename AS _file, "
            "file_row_number AS _row "
            f"FROM read_parquet([{files}], filename = true, file_row_number = true))"
        )
    described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    columns = {row[0]: row[1] for row in described}
    return Source(name=name, columns=columns, located=located, num_rows=num_rows)


def quote_text(text: str) -> str:
    """Returns an SQL string."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def _list_files(name: str, data: Path | Sequence[Path]) -> list[Path]:
    if not isinstance(data, Path):
        paths = list(data)
    elif data.is_dir():
        paths = sorted(data.glob("*.parquet"))
    else:
        paths = [data]
    if not paths:
        raise DataError(f"{name}: {data} has no *.parquet files")
    return paths


def _check_files(name: str, paths: Sequence[Path]) -> int:
    """Returns the number of rows of all files, which must be readable and have the same columns."""
    problems, num_rows, first = [], 0, None
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                num_rows += file.metadata.num_rows
                found = file.schema_arrow.remove_metadata()
        except (OSError, pa.ArrowInvalid) as error:
            problems.append(f"{path} is not a readable Parquet file ({error})")
            continue
        first = first or found
        if not found.equals(first):
            problems.append(f"{path} has other columns or types than {paths[0]}")
    if problems:
        listed = "\n  ".join(problems)
        raise DataError(f"{len(problems)} problem(s) in {len(paths)} files of {name}:\n  {listed}")
    return num_rows


def check_file_columns(paths: Sequence[Path], expected: Sequence[str]) -> None:
    """Checks that Parquet files can be read and have the columns that a converter needs.

    Raises:
        DataError: lists every bad file and every missing column with the nearest name.
    """
    problems = []
    for path in paths:
        try:
            found = pq.read_schema(path).names
        except (OSError, pa.ArrowInvalid) as error:
            problems.append(f"{path} is not a readable Parquet file ({error})")
            continue
        for name in expected:
            if name not in found:
                close = difflib.get_close_matches(name, found, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                problems.append(f"{path}: column {name!r} is missing{hint}")
    if problems:
        raise DataError(f"{len(problems)} problem(s):\n  " + "\n  ".join(problems))
