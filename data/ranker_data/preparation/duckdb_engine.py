"""The embedded SQL engine: one process, with bounded memory."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ranker_data.preparation.engine import PartQueries
from ranker_data.preparation.source import RawData, Source, list_files
from ranker_data.preparation.sql import DUCKDB, quote, quote_text
from ranker_data.preparation.writer import ROW_GROUP_ROWS, PartWriter
from ranker_data.reader import DataError
from ranker_data.schema import Schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuckDBEngine:
    """DuckDB in this process.

    Attributes:
        memory_limit: such as "4GB"; what does not fit is spilled.
        num_threads: number of threads.
        spill_folder: folder for what is spilled; None puts it beside the output.
        spill_limit: such as "200GB", most that may be spilled; None takes what the disk has.
    """

    memory_limit: str = "4GB"
    num_threads: int = 2
    spill_folder: str | None = None
    spill_limit: str | None = None

    @contextlib.contextmanager
    def session(self, folder: Path) -> Iterator["DuckDBSession"]:
        """Starts the engine; see `engine.Engine`."""
        with self.embedded(folder / "engine") as connection:
            # the order of rows is always given by sorting; not keeping another one saves memory
            connection.execute("SET preserve_insertion_order = false")
            yield DuckDBSession(connection, folder)

    def embedded(self, folder: Path) -> duckdb.DuckDBPyConnection:
        """Returns a connection without a database.

        Raises:
            ValueError: DuckDB does not understand a setting.
        """
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.memory_limit,
            "threads": self.num_threads,
            "temp_directory": self.spill_folder or str(folder),
        }
        try:
            connection = duckdb.connect(":memory:", config=config)
            if self.spill_limit is not None:
                # given with the others, it would have no effect
                limit = quote_text(self.spill_limit)
                connection.execute(f"SET max_temp_directory_size = {limit}")
            return connection
        except duckdb.Error as error:
            raise ValueError(
                f"engine: memory_limit ({self.memory_limit!r}) and spill_limit "
                f"({self.spill_limit!r}) must be like '4GB' and num_threads ({self.num_threads}) "
                f"at least 1: {error}"
            ) from error


@contextlib.contextmanager
def readable_errors(what: str = "the raw data") -> Iterator[None]:
    """Turns an engine's lack of memory or disk, or a bad file, into an error with its remedy.

    Args:
        what: is read.

    Raises:
        DataError: in place of the engine's error.
    """
    try:
        yield
    except (
        duckdb.OutOfMemoryException,
        duckdb.IOException,
        duckdb.InvalidInputException,
        duckdb.ConversionException,
    ) as error:
        # what follows the first line is advice about the engine's own settings
        reason = str(error).split("\n")[0]
        if "max_temp_directory_size" in str(error) or "No space left" in str(error):
            raise DataError(
                f"the disk for what does not fit in memory is full ({reason}); set "
                "engine.spill_folder=<folder on a larger disk>, free space or raise "
                "engine.spill_limit, or raise engine.memory_limit"
            ) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise DataError(
                f"the memory limit is too small ({reason}); raise engine.memory_limit, lower "
                "engine.num_threads, or raise num_parts"
            ) from error
        # with the line of a text file that is wrong
        reason = str(error).split("\n\n")[0]
        raise DataError(f"{what} cannot be read: {reason}") from error


class DuckDBSession:
    """A running embedded engine; see `engine.Session`."""

    dialect = DUCKDB

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder

    def open_source(self, name: str, data: RawData, wanted: Collection[str]) -> Source:
        """Makes raw data known as the relation `raw_<name>`."""
        relation = f"raw_{name}"
        if isinstance(data, pa.Table):
            self._connection.register(relation, data)
            place = "'<arrow table>' AS _file, row_number() OVER () - 1 AS _row"
            located = f"(SELECT *, {place} FROM {relation})"
            return Source(name=name, schema=data.schema, located=located, num_rows=data.num_rows)
        files = list_files(name, data, wanted)
        listed = ", ".join(quote_text(str(path)) for path in files.paths)
        columns = ", ".join(
            f"{quote(theirs)} AS {quote(ours)}" for ours, theirs in files.originals.items()
        )
        # by name, which also widens the types
        scan = f"read_parquet([{listed}], union_by_name = true"
        self._connection.execute(f"CREATE VIEW {relation} AS SELECT {columns} FROM {scan})")
        located = (
            f"(SELECT {columns}, filename AS _file, file_row_number AS _row "
            f"FROM {scan}, filename = true, file_row_number = true))"
        )
        return Source(name=name, schema=files.schema, located=located, num_rows=files.num_rows)

    def create(self, name: str, sql: str) -> None:
        """Computes a query once."""
        with readable_errors():
            self._connection.execute(f"CREATE TABLE {quote(name)} AS {sql}")

    def spill(self, name: str, sql: str, num_parts: int) -> None:
        """Computes a query once and keeps its rows in files, by part."""
        folder = self._folder / name
        folder.mkdir(parents=True)
        # a schema-only file lets parts without rows be read like the others
        empty = self.table(f"SELECT * FROM ({sql}) LIMIT 0")
        pq.write_table(empty, folder / "empty.parquet")
        rows = self._buffered_rows(num_parts, empty.schema)
        self._connection.execute(f"SET partitioned_write_flush_threshold = {rows}")
        with readable_errors():
            self._connection.execute(
                f"COPY ({sql}) TO {quote_text(str(folder))} (FORMAT parquet, PARTITION_BY (part), "
                "WRITE_PARTITION_COLUMNS true, OVERWRITE_OR_IGNORE true)"
            )
        self._view_part(name, "*")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the few rows of a query."""
        with readable_errors():
            return self._connection.execute(sql).fetchall()

    def table(self, sql: str) -> pa.Table:
        """Returns the rows of a query that fit in memory."""
        with readable_errors():
            return self._connection.sql(sql).to_arrow_table()

    def write_parts(
        self, queries: PartQueries, *, root: Path, schema: Schema, num_parts: int
    ) -> None:
        """Writes part after part, so that memory is bounded by one of them."""
        events = f"{queries.events} ORDER BY {', '.join(queries.events_order)}"
        samples = f"{queries.samples} ORDER BY {', '.join(queries.samples_order)}"
        for part in tqdm(range(num_parts), desc="writing parts", unit="part", disable=None):
            for name in ("encoded_events", "encoded_samples"):
                self._view_part(name, str(part))
            with PartWriter(root=root, schema=schema, part=part) as writer:
                for batch in self._batches(events):
                    writer.write_behaviors(batch)
                for batch in self._batches(samples):
                    writer.write_split_samples(batch)

    def _buffered_rows(self, num_parts: int, columns: pa.Schema) -> int:
        """Rows that a thread may hold back before it writes them, so that they fit in memory."""
        ((limit, num_threads),) = self.rows(
            "SELECT current_setting('memory_limit'), current_setting('threads')"
        )
        number, unit = limit.split()
        num_bytes = float(number) * 1024 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit)
        # a tenth of the memory, if a value takes 16 bytes and a list has 16 of them
        width = sum(256 if pa.types.is_list(kind) else 16 for kind in columns.types)
        rows = int(num_bytes / 10 / width / num_threads)
        # the count is of all parts together; tiny row groups would make the files slow to read
        return min(max(rows, 2048 * num_parts), 524_288)

    def _batches(self, sql: str) -> Iterator[pa.Table]:
        with readable_errors():
            for batch in self._connection.sql(sql).to_arrow_reader(ROW_GROUP_ROWS):
                yield pa.Table.from_batches([batch])

    def _view_part(self, name: str, part: str) -> None:
        folder = self._folder / name
        paths = [folder / "empty.parquet", *sorted(folder.glob(f"part={part}/*.parquet"))]
        files = ", ".join(quote_text(str(path)) for path in paths)
        self._connection.execute(
            f"CREATE OR REPLACE VIEW {name} AS "
            f"SELECT * FROM read_parquet([{files}], hive_partitioning = false)"
        )
