"""Your own data: Parquet or CSV files, and a YAML description of what their columns mean.

Histories come from an event log, or from list columns of the samples; both end up in the same
layout, each event stored once.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ranker_data.datasets.conversion import RawRelations, convert
from ranker_data.datasets.custom_description import (
    DESCRIPTION_FILE,
    Description,
    FileColumns,
    read_description,
)
from ranker_data.datasets.inlined_history import create_events
from ranker_data.datasets.original_files import check_has_columns, column_types, table_sql
from ranker_data.layout import weights_column
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import digest_of
from ranker_data.preparation.prepare import prepare
from ranker_data.preparation.source import NamedFiles
from ranker_data.preparation.sql import quote, quote_text
from ranker_data.schema import Field, Schema, TimeUnit

_OPTIONAL = ("request", "weight", "order")
_TICKS = {"s": 1_000_000, "ms": 1_000, "us": 1}


class CustomConverter:
    """Converts a folder that has a description, `dataset.yaml`."""

    def __init__(
        self,
        *,
        description: str = DESCRIPTION_FILE,
        num_parts: int = 16,
    ):
        """Sets the definitions.

        Args:
            description: path of the description, relative to the source.
            num_parts: number of co-partitioned files.
        """
        self._description = description
        self._num_parts = num_parts

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the files that the description in `source` names."""
        if source is None:
            raise ValueError(f"source is missing; give the folder that has {self._description}")
        description = read_description(source / self._description)
        plan = description.plan(self._num_parts)
        settings = {
            "converter": "custom",
            "description": dataclasses.asdict(description),
            "plan": plan.digest(),
        }
        found = _find_usable(source, description)
        if found is not None:
            samples, events = found
            digest = digest_of(settings)
            return prepare(
                plan, events=events, samples=samples, out=out, digest=digest, engine=engine
            )

        def build(connection: duckdb.DuckDBPyConnection) -> RawRelations:
            _create_relations(connection, source, description)
            return RawRelations(plan=plan)

        return convert(build, out=out, settings=settings, engine=engine)


def _create_relations(
    connection: duckdb.DuckDBPyConnection, source: Path, description: Description
) -> None:
    unit = description.time_unit
    samples = _Relation(connection, source, "samples", description.samples, unit)
    select = samples.select(description.fields, _numbers(description))
    connection.execute(f"CREATE VIEW sample AS {select}")
    if description.events is not None:
        events = _Relation(connection, source, "events", description.events, unit)
        connection.execute(f"CREATE VIEW event AS {events.select(description.behaviors, [])}")
    if description.history is not None:
        history = description.history
        select = samples.select_lists(description.behaviors, history.columns, history.time)
        connection.execute(f"CREATE VIEW inlined AS {select}")
        names = [field.name for field in description.behaviors]
        create_events(connection, names, with_times=history.time is not None)


def _numbers(description: Description) -> list[str]:
    """Returns the number columns of the samples besides the fields."""
    truths = [label.truth for label in description.labels]
    truths += [task.truth for task in description.tasks]
    names = [label.name for label in description.labels]
    return list(dict.fromkeys([*names, *(name for name in truths if name is not None)]))


def _find_usable(
    source: Path, description: Description
) -> tuple[NamedFiles, NamedFiles | None] | None:
    """Returns samples and events if they can be prepared as they are, on any engine, or None.

    That is: Parquet files, integer times, lists as lists and numbers as numbers, no inlined
    histories. All else is converted by the embedded engine first.
    """
    if description.history is not None:
        return None
    samples = _usable_files(source, description.samples, description.fields, _numbers(description))
    if samples is None or description.events is None:
        return None if samples is None else (samples, None)
    events = _usable_files(source, description.events, description.behaviors, ())
    return None if events is None else (samples, events)


def _usable_files(
    source: Path, given: FileColumns, fields: Sequence[Field], numbers: Sequence[str]
) -> NamedFiles | None:
    paths = sorted(source.glob(given.files))
    if not paths or any(path.suffix != ".parquet" for path in paths):
        return None
    try:
        schema = pq.read_schema(paths[0])
    except (OSError, pa.ArrowInvalid):
        # preparation lists all bad files
        return NamedFiles(paths=paths, columns=given.columns)
    wanted: dict[str, Callable[[pa.DataType], bool]] = {"time": pa.types.is_integer}
    wanted |= {field.name: _USABLE[field.kind] for field in fields}
    wanted |= {weights_column(field): pa.types.is_list for field in fields if field.weighted}
    wanted |= dict.fromkeys(numbers, _is_number)
    # the other way says which name is wrong
    if not set(given.columns) <= {"user", *wanted, *_OPTIONAL}:
        return None
    for name, is_usable in wanted.items():
        original = given.columns.get(name, name)
        if original in schema.names and not is_usable(schema.field(original).type):
            return None
    return NamedFiles(paths=paths, columns=given.columns)


def _is_number(kind: pa.DataType) -> bool:
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return bool(numeric or pa.types.is_boolean(kind))


_USABLE: dict[str, Callable[[pa.DataType], bool]] = {
    "id": lambda kind: True,
    "ids": pa.types.is_list,
    "dense": _is_number,
}


class _Relation:
    """The files of one relation, and the SQL that gives their columns our names and types."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        source: Path,
        name: str,
        given: FileColumns,
        unit: TimeUnit,
    ):
        paths = sorted(source.glob(given.files))
        if not paths:
            raise ValueError(f"{name}.files: nothing in {source} matches {given.files!r}")
        bad = [p.name for p in paths if not p.name.endswith((".parquet", ".csv", ".csv.gz"))]
        if bad:
            raise ValueError(f"{name}.files: {bad[0]} is neither .parquet, .csv nor .csv.gz")
        tables = " UNION ALL ".join(f"SELECT * FROM {table_sql(path)}" for path in paths)
        self._relation = f"({tables})"
        self._connection = connection
        self._name = name
        self._path = paths[0]
        self._given = given
        self._unit = unit
        self._types = column_types(connection, self._relation)
        for ours, theirs in given.columns.items():
            if theirs not in self._types:
                check_has_columns(connection, paths[0], self._relation, [theirs])
            if not isinstance(ours, str):
                raise ValueError(f"{name}.columns: {ours!r} must be text")

    def select(self, fields: Sequence[Field], numbers: Sequence[str]) -> str:
        """Returns user, time, fields and number columns, and optional columns that are there."""
        optional = [name for name in _OPTIONAL if self._original(name) in self._types]
        weighted = [weights_column(field) for field in fields if field.weighted]
        names = [*(field.name for field in fields), *weighted]
        expected = ["user", "time", *names, *numbers, *optional]
        check_has_columns(
            self._connection, self._path, self._relation, [self._original(n) for n in expected]
        )
        self._check_mapping(expected)
        values = {"user": self._column("user"), "time": self._time(self._column("time"), "time")}
        values |= {field.name: self._field(field) for field in fields}
        values |= {name: self._list(self._original(name), "DOUBLE") for name in weighted}
        values |= {name: self._number(name) for name in numbers}
        for name in optional:
            values[name] = self._column(name) if name == "request" else self._number(name)
        if "order" in values:
            values["order"] = f"CAST({self._column('order')} AS BIGINT)"
        columns = ", ".join(f"{value} AS {quote(name)}" for name, value in values.items())
        return f"SELECT {columns} FROM {self._relation}"

    def select_lists(
        self, behaviors: Sequence[Field], columns: Mapping[str, str], time: str | None
    ) -> str:
        """Returns user, time, one list per behaviour and the list `event_time`."""
        names = [*columns.values(), *([time] if time is not None else [])]
        check_has_columns(self._connection, self._path, self._relation, names)
        values = {"user": self._column("user"), "time": self._time(self._column("time"), "time")}
        for field in behaviors:
            kind = "DOUBLE" if field.kind == "dense" else "VARCHAR"
            values[field.name] = self._list(columns[field.name], kind)
        if time is not None:
            values["event_time"] = self._list(time, "BIGINT")
        selected = ", ".join(f"{value} AS {quote(name)}" for name, value in values.items())
        return f"SELECT {selected} FROM {self._relation}"

    def _check_mapping(self, expected: Sequence[str]) -> None:
        unknown = sorted(set(self._given.columns) - set(expected))
        if unknown:
            raise ValueError(
                f"{self._name}.columns names {unknown[0]!r}, which is no column of the "
                f"{self._name}; these are {', '.join(expected)}"
            )

    def _original(self, name: str) -> str:
        return self._given.columns.get(name, name)

    def _column(self, name: str) -> str:
        return quote(self._original(name))

    def _is_text(self, column: str) -> bool:
        return self._types[column] == "VARCHAR"

    def _number(self, name: str) -> str:
        return f"CAST({self._column(name)} AS DOUBLE)"

    def _field(self, field: Field) -> str:
        if field.kind == "dense":
            return self._number(field.name)
        if field.kind == "ids":
            return self._list(self._original(field.name), None)
        return self._column(field.name)

    def _list(self, column: str, kind: str | None) -> str:
        """A list column; text is split, and an empty text is an empty list."""
        value = quote(column)
        if self._is_text(column):
            split = f"string_split({value}, {quote_text(self._given.separator)})"
            value = f"CASE WHEN {value} IS NULL THEN CAST([] AS VARCHAR[]) ELSE {split} END"
            return value if kind is None else f"CAST({value} AS {kind}[])"
        # lists of lists keep their type
        keep = kind is None or self._types[column].endswith("[][]")
        return value if keep else f"CAST({value} AS {kind}[])"

    def _time(self, value: str, name: str) -> str:
        """Integers stay; timestamps, and text that is no integer, are converted to the unit."""
        kind = self._types[self._original(name)]
        moment = f"epoch_us(CAST({value} AS TIMESTAMP)) // {_TICKS[self._unit]}"
        if kind.startswith(("TIMESTAMP", "DATE")):
            return moment
        if kind == "VARCHAR":
            whole = f"TRY_CAST({value} AS BIGINT)"
            return f"CASE WHEN {whole} IS NOT NULL THEN {whole} ELSE {moment} END"
        return value
