"""Spark as the SQL engine: the same statements, spread over a cluster.

Rows are shuffled to the parts, and the executors write the files. The driver holds vocabularies and
users' keys, moves the finished files into place and reads them once more with all checks.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker_data.layout import SPLITS, behaviors_path, samples_path
from ranker_data.preparation.duckdb_engine import DuckDBEngine
from ranker_data.preparation.engine import PartQueries
from ranker_data.preparation.source import RawData, RawFiles, Source, list_files
from ranker_data.preparation.sql import SPARK, quote
from ranker_data.preparation.writer import ROW_GROUP_ROWS, PartWriter
from ranker_data.schema import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# what the statements rely on, whatever the cluster's defaults are
_SETTINGS = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.ansi.doubleQuotedIdentifiers": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.mergeSchema": "false",
}
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparkEngine:
    """Spark, started here or by spark-submit.

    The output folder, what is spilled beside it, and the raw files must be on a file system that
    the driver and all executors see; executors need this package.

    Attributes:
        master: such as "local[2]" or "yarn"; None leaves it to spark-submit.
        conf: further Spark settings.
        memory_limit: of DuckDB on the driver, which reads original files of public data sets.
        num_threads: of DuckDB.
    """

    master: str | None = "local[2]"
    conf: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    memory_limit: str = "4GB"
    num_threads: int = 2

    @contextlib.contextmanager
    def session(self, folder: Path) -> Iterator["SparkSqlSession"]:
        """Starts Spark, or joins the session that runs; see `engine.Engine`.

        Raises:
            ValueError: PySpark or Java is missing, or Spark does not start.
        """
        spark, started = self._start()
        try:
            yield SparkSqlSession(spark, folder)
        finally:
            if started:
                spark.stop()

    def embedded(self, folder: Path) -> duckdb.DuckDBPyConnection:
        """Returns a connection that reads original file formats."""
        engine = DuckDBEngine(memory_limit=self.memory_limit, num_threads=self.num_threads)
        return engine.embedded(folder)

    def _start(self) -> tuple["SparkSession", bool]:
        try:
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise ValueError(
                "engine=spark needs PySpark; install the extra 'spark', or use engine=duckdb"
            ) from error
        started = SparkSession.getActiveSession() is None
        if started and "JAVA_HOME" not in os.environ and shutil.which("java") is None:
            raise ValueError(
                "engine=spark needs Java 17 or later, but there is no java on the PATH and no "
                "JAVA_HOME; install it, or use engine=duckdb"
            )
        settings = _SETTINGS | {str(key): str(value) for key, value in self.conf.items()}
        builder = SparkSession.builder.appName("ranker_data.preparation")
        if self.master is not None:
            builder = builder.master(self.master)
            if self.master.startswith("local"):
                # the workers of this process import what it imported
                os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
                path = os.pathsep.join([str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")])
                builder = builder.config("spark.executorEnv.PYTHONPATH", path)
                builder = builder.config("spark.ui.enabled", "false")
                builder = builder.config("spark.log.level", "ERROR")
        for key, value in settings.items():
            builder = builder.config(key, value)
        try:
            return builder.getOrCreate(), started
        except Exception as error:
            raise ValueError(
                f"Spark does not start with master {self.master!r}: {error}"
            ) from error


class SparkSqlSession:
    """A running Spark; see `engine.Session`."""

    dialect = SPARK

    def __init__(self, spark: "SparkSession", folder: Path) -> None:
        self._spark = spark
        self._folder = folder.resolve()

    def open_source(self, name: str, data: RawData, wanted: Collection[str]) -> Source:
        """Makes raw data known as the relation `raw_<name>`."""
        if isinstance(data, pa.Table):
            path = self._folder / f"arrow_{name}.parquet"
            pq.write_table(data, path)
            data = path
        files = list_files(name, data, wanted)
        paths = [f"file:{path.resolve()}" for path in files.paths]
        types = _wide_types(self._spark.read.parquet(paths[0]), files)
        frame = self._spark.read.schema(types).parquet(*paths)
        columns = [f"{quote(theirs)} AS {quote(ours)}" for ours, theirs in files.originals.items()]
        place = ("_metadata.file_path AS _file", "_metadata.row_index AS _row")
        frame.selectExpr(*columns).createOrReplaceTempView(f"raw_{name}")
        frame.selectExpr(*columns, *place).createOrReplaceTempView(f"located_{name}")
        return Source(
            name=name, schema=files.schema, located=f"located_{name}", num_rows=files.num_rows
        )

    def create(self, name: str, sql: str) -> None:
        """Computes a query once and keeps its rows in files."""
        path = f"file:{self._folder / name}"
        self._spark.sql(sql).write.parquet(path)
        self._spark.read.parquet(path).createOrReplaceTempView(f"`{name}`")

    def spill(self, name: str, sql: str, num_parts: int) -> None:
        """Like `create`; every relation is kept in files."""
        self.create(name, sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the few rows of a query."""
        return [tuple(row) for row in self._spark.sql(sql).collect()]

    def table(self, sql: str) -> pa.Table:
        """Returns the rows of a query that fit in memory."""
        return self._spark.sql(sql).toArrow()

    def write_parts(
        self, queries: PartQueries, *, root: Path, schema: Schema, num_parts: int
    ) -> None:
        """Sorts the rows of each part into one file, and lets the executors finish the parts."""
        for name, sql, order in (
            ("sorted_events", queries.events, queries.events_order),
            ("sorted_samples", queries.samples, queries.samples_order),
        ):
            frame = _by_part(self._spark.sql(sql), num_parts, order)
            frame.write.parquet(f"file:{self._folder / name}")
        attempts = self._folder / "attempts"
        attempts.mkdir()
        write = functools.partial(_write_part, folder=self._folder, schema=schema)
        parts = self._spark.sparkContext.parallelize(range(num_parts), num_parts)
        for part, attempt in parts.map(write).collect():
            # a task may run twice: files of the attempt that counts are moved into place
            files = [behaviors_path(attempt, part)]
            files += [samples_path(attempt, split, part) for split in SPLITS]
            for path in files:
                target = root / path.relative_to(attempt)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        shutil.rmtree(attempts)


def _wide_types(first: "DataFrame", files: RawFiles) -> str:
    """Returns the columns of the first file with types that hold the values of every file."""
    wide = {pa.int64(): "BIGINT", pa.float64(): "DOUBLE"}
    wide |= {pa.list_(kind): f"ARRAY<{name}>" for kind, name in wide.items()}
    types = {field.name: field.dataType.simpleString() for field in first.schema.fields}
    wanted = {files.originals[column.name]: column.type for column in files.schema}
    return ", ".join(
        f"`{name.replace('`', '``')}` {wide.get(kind, types[name])}"
        for name, kind in wanted.items()
    )


def _by_part(frame: "DataFrame", num_parts: int, order: Iterable[str]) -> "DataFrame":
    """Returns the rows with partition i holding part i, in order."""
    columns = [name.strip('"').replace('""', '"').replace("`", "``") for name in order]
    return (
        frame.withColumn("partition", frame["part"].cast("int"))
        .repartitionById(num_parts, "partition")
        .sortWithinPartitions(*(f"`{name}`" for name in columns))
    )


def _write_part(part: int, *, folder: Path, schema: Schema) -> tuple[int, Path]:
    """Writes the files of a part on an executor; returns the part and where they are."""
    attempt = Path(tempfile.mkdtemp(prefix=f"part-{part}-", dir=folder / "attempts"))
    with PartWriter(root=attempt, schema=schema, part=part) as writer:
        for table in _sorted_rows(folder / "sorted_events", part):
            writer.write_behaviors(table)
        for table in _sorted_rows(folder / "sorted_samples", part):
            writer.write_split_samples(table)
    return part, attempt


def _sorted_rows(folder: Path, part: int) -> Iterator[pa.Table]:
    """Yields the rows of partition `part`, whose number is in the name of its file."""
    for path in folder.glob(f"part-{part:05d}-*.parquet"):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROW_GROUP_ROWS):
                table = pa.Table.from_batches([batch])
                assert pc.all(pc.equal(table["part"], part)).as_py(), f"{path}: not part {part}"
                yield table
