"""What converters share: original files become two relations, and these an event log."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from ranker_data.datasets.original_files import check_has_columns
from ranker_data.preparation.duckdb_engine import DuckDBEngine, readable_errors
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.output import check_output
from ranker_data.preparation.plan import Preparation, digest_of
from ranker_data.preparation.prepare import prepare
from ranker_data.preparation.sql import quote_text
from ranker_data.schema import Schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawRelations:
    """What a converter made of the original files.

    Attributes:
        plan: what the relations mean.
        counts: rows that were dropped or changed on the way, for `stats.json`.
    """

    plan: Preparation
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)


def convert(
    build: Callable[[duckdb.DuckDBPyConnection], RawRelations],
    *,
    out: Path,
    settings: Mapping[str, Any],
    engine: Engine | None,
) -> Schema:
    """Prepares a data set from the relations `sample` and `event` of an SQL engine.

    Args:
        build: creates the relation `sample` and, if its plan has behaviours, `event`, with the
            columns that `preparation.prepare.prepare` wants. Row numbers follow the files' order.
        out: folder of the prepared data set.
        settings: everything that the output depends on besides the files.
        engine: runs the preparation, and lends its resources to the reading of the files; DuckDB
            with its default resources if None.

    Returns:
        The schema that was written.

    Raises:
        ValueError: a file cannot be parsed, or `out` holds something else.
    """
    digest = digest_of(settings)
    engine = engine or DuckDBEngine()
    # before the work, not after it
    check_output(out, digest)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.raw-", dir=out.parent) as folder:
        raw = Path(folder)
        with engine.embedded(raw / "engine") as connection:
            try:
                with readable_errors("the original files"):
                    relations = build(connection)
                    samples = _export(connection, "sample", raw)
                    has_events = bool(relations.plan.behaviors)
                    events = _export(connection, "event", raw) if has_events else None
            except duckdb.Error as error:
                # what follows the first paragraph is advice about the engine
                reason = str(error).split("\n\n")[0]
                raise ValueError(f"the original files cannot be read: {reason}") from error
        return prepare(
            relations.plan,
            events=events,
            samples=samples,
            out=out,
            digest=digest,
            engine=engine,
            counts=relations.counts,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawTable:
    """One file with a sample in every row, and no events.

    Attributes:
        path: the file.
        relation: its rows as SQL, see `original_files.table_sql`.
        columns: that it must have.
        sample_sql: query of the samples.
        counted: name -> condition on rows of the file, which are counted for `stats.json`.
    """

    path: Path
    relation: str
    columns: Sequence[str]
    sample_sql: str
    counted: Mapping[str, str]


def convert_table(
    table: RawTable, plan: Preparation, *, out: Path, engine: Engine | None
) -> Schema:
    """Prepares a data set of one table; the rest as in `convert`."""

    def build(connection: duckdb.DuckDBPyConnection) -> RawRelations:
        check_has_columns(connection, table.path, table.relation, table.columns)
        connection.execute(f"CREATE VIEW sample AS {table.sample_sql}")
        return RawRelations(
            plan=plan,
            counts={
                name: count_rows(connection, table.relation, condition)
                for name, condition in table.counted.items()
            },
        )

    settings = {"converter": plan.name, "plan": plan.digest()}
    return convert(build, out=out, settings=settings, engine=engine)


def count_rows(
    connection: duckdb.DuckDBPyConnection, relation: str, condition: str = "true"
) -> int:
    """Returns the number of rows of a relation that meet a condition."""
    rows = connection.execute(f"SELECT count(*) FROM {relation} WHERE {condition}").fetchall()
    return int(rows[0][0])


def _export(connection: duckdb.DuckDBPyConnection, relation: str, folder: Path) -> Path:
    path = folder / f"{relation}.parquet"
    connection.execute(f"COPY {relation} TO {quote_text(str(path))} (FORMAT parquet)")
    return path
