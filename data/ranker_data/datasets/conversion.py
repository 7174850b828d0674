"""What converters share: original files become two relations, and these an event log."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb

from ranker_data.preparation.engine import connect
from ranker_data.preparation.output import check_output
from ranker_data.preparation.plan import Preparation, digest_of
from ranker_data.preparation.prepare import prepare
from ranker_data.preparation.source import quote_text
from ranker_data.schema import Schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Resources of the SQL engine; they do not change the output.

    Attributes:
        memory_limit: such as "4GB"; what does not fit is spilled beside the output.
        num_threads: number of threads.
    """

    memory_limit: str = "4GB"
    num_threads: int = 2


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
    engine: EngineOptions,
) -> Schema:
    """Prepares a data set from the relations `sample` and `event` of an SQL engine.

    Args:
        build: creates the relation `sample` and, if its plan has behaviours, `event`, with the
            columns that `preparation.prepare.prepare` wants. Row numbers follow the files' order.
        out: folder of the prepared data set.
        settings: everything that the output depends on besides the files.
        engine: resources.

    Returns:
        The schema that was written.

    Raises:
        ValueError: a file cannot be parsed, or `out` holds something else.
    """
    digest = digest_of(settings)
    # before the work, not after it
    check_output(out, digest)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.raw-", dir=out.parent) as folder:
        with connect(
            memory_limit=engine.memory_limit,
            num_threads=engine.num_threads,
            spill=Path(folder) / "engine",
        ) as connection:
            connection.execute("SET preserve_insertion_order = true")
            try:
                relations = build(connection)
                samples = _export(connection, "sample", Path(folder))
                events = (
                    _export(connection, "event", Path(folder)) if relations.plan.behaviors else None
                )
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
            memory_limit=engine.memory_limit,
            num_threads=engine.num_threads,
            counts=relations.counts,
        )


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
