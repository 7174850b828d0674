"""Checks that cost no reading: every file's footer, its columns and their statistics."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ranker_data.doctor.findings import Finding
from ranker_data.layout import SPLITS, behaviors_arrow_schema, samples_arrow_schema
from ranker_data.reader import DataError, column_problems, list_parts
from ranker_data.schema import Field, Schema
from ranker_data.time_units import describe_time_unit, guess_time_unit

_THREADS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footer:
    """What the footer of a file says.

    Attributes:
        path: of the file.
        num_rows: rows.
        ranges: column -> least and largest value, where the writer recorded them.
        nulls: column -> nulls, likewise.
        further: columns that the schema does not know, and nobody reads.
    """

    path: Path
    num_rows: int
    ranges: Mapping[str, tuple[float, float]]
    nulls: Mapping[str, int]
    further: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footers:
    """The footers that could be read: of the behaviours, and of each split."""

    behaviors: Sequence[Footer]
    samples: Mapping[str, Sequence[Footer]]

    def num_rows(self, split: str) -> int:
        """Returns the number of samples of a split."""
        return sum(footer.num_rows for footer in self.samples[split])

    def times(self, split: str) -> tuple[float, float] | None:
        """Returns the first and the last time of a split, if they are known."""
        ranges = [f.ranges.get("time") for f in self.samples[split] if f.num_rows]
        known = [found for found in ranges if found is not None]
        if not known or len(known) < len(ranges):
            return None
        return min(low for low, _ in known), max(high for _, high in known)


def read_footers(root: Path, schema: Schema) -> tuple[Footers, list[Finding]]:
    """Reads the footers of all files; every file that cannot be used is a finding."""
    findings: list[Finding] = []
    expected = {"behaviors": behaviors_arrow_schema(schema)}
    expected |= {f"samples/{split}": samples_arrow_schema(schema) for split in SPLITS}
    found: dict[str, list[Footer]] = {}
    counts = {}
    for folder, columns in expected.items():
        try:
            paths = list_parts(root / folder)
        except DataError as error:
            findings.append(Finding("files", str(error)))
            paths = []
        counts[folder] = len(paths)
        found[folder] = []
        with ThreadPoolExecutor(max_workers=_THREADS) as pool:
            for result in pool.map(lambda path, c=columns: _read_footer(path, c), paths):
                if isinstance(result, Footer):
                    found[folder].append(result)
                else:
                    findings += result
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{folder} {count}" for folder, count in counts.items())
        findings.append(
            Finding(
                "files",
                f"{root}: folders have different numbers of parts: {listed}; samples "
                "and behaviors must be prepared together",
            )
        )
    samples = {split: found[f"samples/{split}"] for split in SPLITS}
    return Footers(behaviors=found["behaviors"], samples=samples), findings


def _read_footer(path: Path, expected: pa.Schema) -> Footer | list[Finding]:
    try:
        with pq.ParquetFile(path) as file:
            problems = column_problems(path, file.schema_arrow, expected)
            if problems:
                return [Finding("columns", problem) for problem in problems]
            further = tuple(n for n in file.schema_arrow.names if n not in expected.names)
            return _statistics(path, file, further)
    except (OSError, pa.ArrowInvalid) as error:
        size = path.stat().st_size if path.is_file() else None
        size_text = f", {size:,} bytes" if size is not None else ""
        return [Finding("files", f"{path} is not a readable Parquet file ({error}{size_text})")]


def _statistics(path: Path, file: pq.ParquetFile, further: tuple[str, ...]) -> Footer:
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    nulls: dict[str, int] = {}
    unknown = set()
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        for i in range(metadata.num_columns):
            column = metadata.row_group(group).column(i)
            name, statistics = column.path_in_schema.split(".list.")[0], column.statistics
            if statistics is None or not statistics.has_min_max:
                unknown.add(name)
                continue
            lows[name] = min(lows.get(name, statistics.min), statistics.min)
            highs[name] = max(highs.get(name, statistics.max), statistics.max)
            if statistics.has_null_count and ".list." not in column.path_in_schema:
                nulls[name] = nulls.get(name, 0) + statistics.null_count
    ranges = {name: (lows[name], highs[name]) for name in lows if name not in unknown}
    return Footer(
        path=path, num_rows=metadata.num_rows, ranges=ranges, nulls=nulls, further=further
    )


def check_statistics(footers: Footers, schema: Schema) -> Iterator[Finding]:
    """Checks ranges of ids, labels and times, nulls, and that there are rows."""
    relations = [(footers.behaviors, schema.behaviors, behaviors_arrow_schema(schema))]
    relations += [
        (files, schema.fields, samples_arrow_schema(schema)) for files in footers.samples.values()
    ]
    for files, fields, columns in relations:
        for footer in files:
            yield from _check_file(footer, fields, columns, schema)
    if footers.samples["train"] and footers.num_rows("train") == 0:
        num_files = len(footers.samples["train"])
        yield Finding("empty_split", f"training data has 0 rows in {num_files} files")
    yield from _check_order_of_splits(footers)
    yield from _check_one_unit(footers)
    files_with_more = [f for files, _, _ in relations for f in files if f.further]
    if files_with_more:
        names = sorted({name for footer in files_with_more for name in footer.further})
        yield Finding(
            "further_columns",
            f"{len(files_with_more)} file(s) have columns that the schema does not know and "
            f"nobody reads: {', '.join(names)}",
        )


def _check_one_unit(footers: Footers) -> Iterator[Finding]:
    """Files whose times are in different units are a mistake, whatever the schema says."""
    units: dict[str, Path] = {}
    for footer in [*footers.behaviors, *(f for files in footers.samples.values() for f in files)]:
        for moment in footer.ranges.get("time", ()):
            unit = guess_time_unit(int(moment))
            if unit is not None:
                units.setdefault(unit, footer.path)
    if len(units) > 1:
        listed = ", ".join(f"{unit!r} in {path}" for unit, path in units.items())
        yield Finding("mixed_units", f"times look like {listed}; convert all files to one unit")


def _check_file(
    footer: Footer, fields: Sequence[Field], columns: pa.Schema, schema: Schema
) -> Iterator[Finding]:
    for field in fields:
        if field.table is not None and field.name in footer.ranges:
            yield from _check_ids(footer, field, schema)
    for label in schema.labels:
        low, high = footer.ranges.get(label.name, (0.0, 1.0))
        if low < 0 or high > 1:
            yield Finding(
                "labels",
                f"{footer.path}: label {label.name!r} has values from {low + 0.0:g} to {high:g}; a "
                "label must be 0, 1 or null (undefined)",
            )
    for column in columns:
        count = footer.nulls.get(column.name, 0)
        if count and not column.nullable:
            yield Finding(
                "nulls",
                f"{footer.path}: column {column.name!r} has {count:,} null(s); it must have a "
                "value in every row",
            )
    for moment in footer.ranges.get("time", ()):
        problem = describe_time_unit(int(moment), schema.time_unit)
        if problem is not None:
            yield Finding("time_unit", f"{footer.path}: {problem}")
            break


def _check_ids(footer: Footer, field: Field, schema: Schema) -> Iterator[Finding]:
    assert field.table is not None
    table = schema.table(field.table)
    low, high = footer.ranges[field.name]
    size = table.num_embeddings
    if table.out_of_range == "error" and (low < 0 or (size is not None and high >= size)):
        limit = "not be negative" if size is None else f"be in [0, {size})"
        yield Finding(
            "ids",
            f"{footer.path}: ids of {field.name!r} go from {low:g} to {high:g}; ids of table "
            f"{table.name!r} must {limit}; raise its num_embeddings, or set its out_of_range to "
            "oov or hash",
        )


def _check_order_of_splits(footers: Footers) -> Iterator[Finding]:
    last: float | None = None
    earlier = ""
    for split in SPLITS:
        times = footers.times(split)
        if times is None:
            continue
        if last is not None and times[0] <= last:
            yield Finding(
                "split_overlap",
                f"{split} begins at {times[0]:.0f}, before {earlier} ends at {last:.0f}: a model "
                "learns from rows that are later than some it is tested on",
            )
        last = times[1] if last is None else max(last, times[1])
        earlier = split
