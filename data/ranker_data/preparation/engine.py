"""What a preparation needs of an SQL engine, so that one text runs embedded and on a cluster."""

import contextlib
import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from ranker_data.preparation.source import RawData, Source
from ranker_data.preparation.sql import Dialect
from ranker_data.schema import Schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartQueries:
    """What is written of the relations `encoded_events` and `encoded_samples`.

    Rows have the `part` that they belong to, and samples have their `split`. The orders are of the
    rows of a part.
    """

    events: str
    events_order: tuple[str, ...]
    samples: str
    samples_order: tuple[str, ...]


class Session(Protocol):
    """A running engine; relations that it creates end with it."""

    @property
    def dialect(self) -> Dialect:
        """How the engine spells lists."""
        ...

    def open_source(self, name: str, data: RawData, wanted: Collection[str]) -> Source:
        """Makes raw data known as the relation `raw_<name>`.

        Args:
            name: "events" or "samples".
            data: an Arrow table, a Parquet file, a folder of Parquet files, or a list of them.
            wanted: columns that the plan may read; further ones need not be alike in all files.

        Raises:
            DataError: see `source.list_files`.
        """
        ...

    def create(self, name: str, sql: str) -> None:
        """Computes a query once and gives its rows a name."""
        ...

    def spill(self, name: str, sql: str, num_parts: int) -> None:
        """Like `create`, for rows with a column `part` that are too many for memory."""
        ...

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the few rows of a query."""
        ...

    def table(self, sql: str) -> pa.Table:
        """Returns the rows of a query that fit in memory."""
        ...

    def write_parts(
        self, queries: PartQueries, *, root: Path, schema: Schema, num_parts: int
    ) -> None:
        """Writes the files of all parts under `root`, with bounded memory."""
        ...


class Engine(Protocol):
    """An engine that can be started: the resources, which do not change the output."""

    def session(self, folder: Path) -> contextlib.AbstractContextManager[Session]:
        """Starts the engine.

        Args:
            folder: where it may put what does not fit in memory; on a cluster, all machines must
                see it.
        """
        ...

    def embedded(self, folder: Path) -> duckdb.DuckDBPyConnection:
        """Returns a connection that reads original file formats, spilling to `folder`."""
        ...
