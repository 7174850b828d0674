"""Prepares raw events and samples with an embedded engine.

The definition is the SQL of `statements.py`. This file runs it on DuckDB in two steps, so that
memory is bounded by the engine's limit and by one part: rows get their ids and are spilled by part,
then each part is joined, sorted and written.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ranker_data.layout import (
    BEHAVIOR_KEYS,
    SPLITS,
    behaviors_arrow_schema,
    samples_arrow_schema,
    truth_columns,
)
from ranker_data.preparation import statements
from ranker_data.preparation.checks import (
    check_columns,
    check_user_fields,
    check_values,
    quote,
)
from ranker_data.preparation.engine import connect
from ranker_data.preparation.output import staged_output
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.preparation.source import RawData, Source, open_source, quote_text
from ranker_data.preparation.summary import write_stats
from ranker_data.preparation.writer import ROW_GROUP_ROWS, PartWriter
from ranker_data.reader import DataError
from ranker_data.schema import Field, Schema, write_schema

VOCABULARY_FOLDER = "vocabulary"
_UNKNOWN = "unknown"


def prepare(
    plan: Preparation,
    *,
    events: RawData | None,
    samples: RawData,
    out: Path,
    digest: str | None = None,
    memory_limit: str = "4GB",
    num_threads: int = 2,
    counts: Mapping[str, int] | None = None,
) -> Schema:
    """Prepares a data set.

    Args:
        plan: what to do.
        events: raw events with columns `user`, `time`, the plan's behaviour fields and optionally
            `order` (an integer that ranks events of one user at one time); None if the plan has no
            behaviours.
        samples: raw samples with columns `user`, `time`, the plan's fields, its labels (0, 1,
            null), and optionally `request`, `weight` (1 if not there) and `order`.
        out: folder of the prepared data set. It appears when everything is done; the output of an
            earlier run of the same plan is replaced, anything else is an error.
        digest: fingerprint by which the same preparation is recognised; the plan's if None.
        memory_limit: of the engine, such as "4GB"; beyond it the engine spills to disk beside
            `out`.
        num_threads: of the engine.
        counts: what became of rows before they came here, for `stats.json`.

    Returns:
        The schema, which is also written to the folder, as are `stats.json` and the vocabularies.

    Raises:
        DataError: the raw data breaks a rule; names relation or file, column, row and value.
        ValueError: `out` holds something else.
    """
    digest = digest or plan.digest()
    with staged_output(out, digest) as root:
        spill = root.parent / "spill"
        with connect(
            memory_limit=memory_limit, num_threads=num_threads, spill=spill / "engine"
        ) as connection:
            run = _Run(
                plan=plan, root=root, spill=spill, connection=connection, counts=counts or {}
            )
            return run.execute(events=events, samples=samples, digest=digest)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    plan: Preparation
    root: Path
    spill: Path
    connection: duckdb.DuckDBPyConnection
    counts: Mapping[str, int]

    def execute(self, *, events: RawData | None, samples: RawData, digest: str) -> Schema:
        raw_samples = open_source(self.connection, "samples", samples)
        raw_events = open_source(self.connection, "events", self._or_no_events(events))
        checks = self._check(raw_events, raw_samples)
        self.connection.execute(statements.users_sql(self.plan))
        sizes = {name: self._build_vocabulary(name) for name in self.plan.table_names}
        self._encode(raw_events, raw_samples)
        schema = self.plan.schema(
            sizes=sizes, moments=self._measure(), domain_names=self._domain_names()
        )
        for part in tqdm(
            range(self.plan.num_parts), desc="writing parts", unit="part", disable=None
        ):
            self._write_part(schema, part)
        write_schema(schema, self.root)
        dropped = self.connection.execute(
            "SELECT count(*) FROM raw_events e "
            'LEFT JOIN users u ON CAST(e."user" AS STRING) = u.name WHERE u.name IS NULL'
        ).fetchall()
        write_stats(
            self.root,
            schema,
            digest=digest,
            num_parts=self.plan.num_parts,
            checks=checks,
            wanted_splits=self.plan.wanted_splits,
            split_in_time=isinstance(self.plan.split, TimeSplit),
            raw={
                **self.counts,
                "events": raw_events.num_rows,
                "samples": raw_samples.num_rows,
                "events_of_users_without_samples": dropped[0][0],
            },
        )
        return schema

    def _or_no_events(self, events: RawData | None) -> RawData:
        if events is not None:
            return events
        if self.plan.behaviors:
            raise DataError(
                "events: there are none, but the plan has behaviors; give events or drop the "
                "behaviors"
            )
        return pa.table({name: pa.array([], kind) for name, kind in BEHAVIOR_KEYS.items()})

    def _check(self, events: Source, samples: Source) -> list[str]:
        if samples.num_rows == 0:
            raise DataError("samples: there are no rows; nothing can be prepared")
        check_columns(self.plan, events, samples)
        checks = []
        for source in (events, samples):
            checks += check_values(self.connection, self.plan, source)
        return checks + check_user_fields(self.connection, self.plan)

    def _build_vocabulary(self, table: str) -> int:
        """Makes the vocabulary of a table and returns its number of ids, id 0 included."""
        self.connection.execute(statements.vocabulary_sql(self.plan, table))
        relation = quote(f"vocabulary_{table}")
        found = self.connection.sql(
            f"SELECT value, id, n AS count FROM {relation} ORDER BY id"
        ).to_arrow_table()
        folder = self.root / VOCABULARY_FOLDER
        folder.mkdir(exist_ok=True)
        pq.write_table(
            found, folder / f"{table}.parquet", compression="zstd", write_page_checksum=True
        )
        return found.num_rows + 1

    def _domain_names(self) -> tuple[str, ...]:
        domain = next((f for f in self.plan.fields if f.name == self.plan.domain), None)
        if domain is None:
            return ()
        relation = quote(f"vocabulary_{domain.table}")
        rows = self.connection.execute(f"SELECT value FROM {relation} ORDER BY id").fetchall()
        return (_UNKNOWN, *(row[0] for row in rows))

    def _encode(self, events: Source, samples: Source) -> None:
        for relation, fields in (("events", self.plan.behaviors), ("samples", self.plan.fields)):
            for field in fields:
                if field.kind == "ids":
                    self.connection.execute(statements.lists_sql(relation, field))
        truths = truth_columns(self.plan.draft_schema())
        self._spill_by_part("events", statements.encoded_events_sql(self.plan, set(events.columns)))
        self._spill_by_part(
            "samples", statements.encoded_samples_sql(self.plan, set(samples.columns), truths)
        )

    def _spill_by_part(self, name: str, sql: str) -> None:
        folder = self.spill / name
        folder.mkdir(parents=True)
        # a schema-only file lets parts without rows be read like the others
        empty = self.connection.sql(f"SELECT * FROM ({sql}) LIMIT 0").to_arrow_table()
        pq.write_table(empty, folder / "empty.parquet")
        self.connection.execute(
            f"COPY ({sql}) TO {quote_text(str(folder))} (FORMAT parquet, PARTITION_BY (part), "
            "WRITE_PARTITION_COLUMNS true, OVERWRITE_OR_IGNORE true)"
        )

    def _spilled(self, name: str, part: str) -> str:
        folder = self.spill / name
        paths = [folder / "empty.parquet", *sorted(folder.glob(f"part={part}/*.parquet"))]
        files = ", ".join(quote_text(str(path)) for path in paths)
        return f"read_parquet([{files}], hive_partitioning = false)"

    def _measure(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Returns mean and standard deviation of dense fields before the validation moment."""
        moments: dict[tuple[str, str], tuple[float, float]] = {}
        for name, fields, condition in (
            ("samples", self.plan.fields, "split = 'train'"),
            ("events", self.plan.behaviors, "fit"),
        ):
            dense = tuple(field for field in fields if field.kind == "dense")
            if dense:
                sql = statements.moments_sql(self._spilled(name, "*"), dense, condition)
                found = self.connection.execute(sql).fetchall()
                moments |= moments_of(name, dense, found[0])
        return moments

    def _write_part(self, schema: Schema, part: int) -> None:
        samples, events = self._spilled("samples", str(part)), self._spilled("events", str(part))
        behaviors = statements.part_events_sql(self.plan, events)
        joined = statements.part_samples_sql(self.plan, samples, events, truth_columns(schema))
        with PartWriter(root=self.root, schema=schema, part=part) as writer:
            names = behaviors_arrow_schema(schema).names
            for batch in self.connection.sql(behaviors).to_arrow_reader(ROW_GROUP_ROWS):
                writer.write_behaviors(pa.Table.from_batches([batch]).select(names))
            names = samples_arrow_schema(schema).names
            for batch in self.connection.sql(joined).to_arrow_reader(ROW_GROUP_ROWS):
                rows = pa.Table.from_batches([batch])
                for split in SPLITS:
                    mask = pa.compute.equal(rows["split"], split)
                    writer.write_samples(split, rows.filter(mask).select(names))


def moments_of(
    relation: str, fields: tuple[Field, ...], found: tuple[float | None, ...]
) -> dict[tuple[str, str], tuple[float, float]]:
    """Returns {(relation, field): (mean, std)} from the row that `statements.moments_sql` selects.

    Sums depend on the order of the threads in the last digits: six digits are kept, which do not. A
    field without variation, or without rows to measure, is left as it is (mean 0 or its value, std
    1).
    """
    moments = {}
    for index, field in enumerate(fields):
        mean, std = found[2 * index], found[2 * index + 1]
        if mean is None or std is None:
            moments[relation, field.name] = (0.0, 1.0)
        else:
            varies = std > 1e-6 * max(abs(mean), 1e-30) and math.isfinite(std)
            moments[relation, field.name] = (_rounded(mean), _rounded(std) if varies else 1.0)
    return moments


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
