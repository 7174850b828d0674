"""Prepares raw events and samples on an SQL engine.

The definition is the SQL of `statements.py`; this file runs it. Rows get their ids and are spilled
by part, then the parts are joined, sorted and written, so that memory stays bounded.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ranker_data.layout import BEHAVIOR_KEYS, field_columns, truth_columns
from ranker_data.preparation import statements
from ranker_data.preparation.checks import check_columns, check_user_fields, check_values
from ranker_data.preparation.duckdb_engine import DuckDBEngine
from ranker_data.preparation.engine import Engine, PartQueries, Session
from ranker_data.preparation.output import staged_output
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.preparation.source import RawData, Source, leave_out_bad_files
from ranker_data.preparation.sql import LARGEST_FLOAT, quote
from ranker_data.preparation.summary import write_stats
from ranker_data.preparation.users import users_sql
from ranker_data.reader import DataError
from ranker_data.schema import Field, Schema, write_schema

VOCABULARY_FOLDER = "vocabulary"
_UNKNOWN = "unknown"
_VOCABULARY_COLUMNS = pa.schema(
    [pa.field("value", pa.string()), pa.field("id", pa.int64()), pa.field("count", pa.int64())]
)


def prepare(
    plan: Preparation,
    *,
    events: RawData | None,
    samples: RawData,
    out: Path,
    digest: str | None = None,
    engine: Engine | None = None,
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
        engine: runs the SQL; DuckDB with its default resources if None. The output does not depend
            on it.
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
        spill.mkdir()
        with (engine or DuckDBEngine()).session(spill) as session:
            run = _Run(plan=plan, root=root, session=session, counts=counts or {})
            return run.execute(events=events, samples=samples, digest=digest)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    plan: Preparation
    root: Path
    session: Session
    counts: Mapping[str, int]
    # raw files that could not be read
    left_out: list[str] = dataclasses.field(default_factory=list)

    def execute(self, *, events: RawData | None, samples: RawData, digest: str) -> Schema:
        raw_samples = self._open("samples", samples, self.plan.fields)
        raw_events = self._open("events", self._or_no_events(events), self.plan.behaviors)
        checks = self._check(raw_events, raw_samples)
        self.session.create("users", users_sql(self.plan))
        sizes = {
            name: self.plan.hashed[name]
            if name in self.plan.hashed
            else self._build_vocabulary(name)
            for name in self.plan.table_names
        }
        self._encode(raw_events, raw_samples)
        schema = self.plan.schema(
            sizes=sizes, moments=self._measure(), domain_names=self._domain_names()
        )
        queries = PartQueries(
            events=statements.part_events_sql(self.plan),
            events_order=statements.events_order(self.plan),
            samples=statements.part_samples_sql(self.plan, truth_columns(schema)),
            samples_order=("sample_id",),
        )
        self.session.write_parts(
            queries, root=self.root, schema=schema, num_parts=self.plan.num_parts
        )
        write_schema(schema, self.root)
        ((dropped,),) = self.session.rows(statements.EVENTS_WITHOUT_SAMPLES)
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
                "events_of_users_without_samples": dropped,
                **self._count_nulls(),
                **dict.fromkeys([f"unreadable file {path}" for path in self.left_out], 1),
            },
        )
        return schema

    def _count_nulls(self) -> dict[str, int]:
        """Returns how many values of each field are null (or not finite), where there are some."""
        counts: dict[str, int] = {}
        for relation, fields in (("events", self.plan.behaviors), ("samples", self.plan.fields)):
            if fields:
                sums = [f"sum(CASE WHEN {_is_null(field)} THEN 1 ELSE 0 END)" for field in fields]
                (found,) = self.session.rows(f"SELECT {', '.join(sums)} FROM raw_{relation}")
                names = [f"nulls_in_{relation}.{field.name}" for field in fields]
                counts |= {n: int(c) for n, c in zip(names, found, strict=True) if c}
        return counts

    def _open(self, name: str, data: RawData, fields: tuple[Field, ...]) -> Source:
        wanted = {"user", "time", "order", *field_columns(fields)}
        if name == "samples":
            wanted |= {"request", "weight", *(label.name for label in self.plan.labels)}
            wanted |= set(truth_columns(self.plan.draft_schema()))
        if not isinstance(data, pa.Table) and self.plan.bad_file_share > 0:
            data, bad = leave_out_bad_files(name, data, self.plan.bad_file_share)
            self.left_out.extend(bad)
        return self.session.open_source(name, data, wanted)

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
            checks += check_values(self.session, self.plan, source)
        return checks + check_user_fields(self.session, self.plan)

    def _build_vocabulary(self, table: str) -> int:
        """Makes the vocabulary of a table and returns its number of ids, id 0 included."""
        name = f"vocabulary_{table}"
        self.session.create(name, statements.vocabulary_sql(self.plan, table, self.session.dialect))
        found = self.session.table(
            f"SELECT value, id, n AS count FROM {quote(name)} ORDER BY id"
        ).cast(_VOCABULARY_COLUMNS)
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
        rows = self.session.rows(f"SELECT value FROM {relation} ORDER BY id")
        return (_UNKNOWN, *(row[0] for row in rows))

    def _encode(self, events: Source, samples: Source) -> None:
        dialect = self.session.dialect
        for relation, fields in (("events", self.plan.behaviors), ("samples", self.plan.fields)):
            for field in fields:
                if field.kind == "ids":
                    lists = statements.lists_sql(self.plan, relation, field, dialect)
                    self.session.create(f"lists_{relation}_{field.name}", lists)
        truths = truth_columns(self.plan.draft_schema())
        for source, sql in (
            (events, statements.encoded_events_sql(self.plan, set(events.schema.names), dialect)),
            (
                samples,
                statements.encoded_samples_sql(
                    self.plan, set(samples.schema.names), truths, dialect
                ),
            ),
        ):
            self.session.spill(f"encoded_{source.name}", sql, self.plan.num_parts)

    def _measure(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Returns mean and standard deviation of dense fields before the validation moment."""
        moments: dict[tuple[str, str], tuple[float, float]] = {}
        for name, fields, condition in (
            ("samples", self.plan.fields, "split = 'train'"),
            ("events", self.plan.behaviors, "fit"),
        ):
            dense = tuple(field for field in fields if field.kind == "dense")
            if dense:
                sql = statements.moments_sql(f"encoded_{name}", dense, condition)
                (found,) = self.session.rows(sql)
                moments |= moments_of(name, dense, found)
        return moments


def _is_null(field: Field) -> str:
    column = quote(field.name)
    if field.kind != "dense":
        return f"{column} IS NULL"
    return f"{column} IS NULL OR abs(CAST({column} AS DOUBLE)) > {LARGEST_FLOAT}"


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
