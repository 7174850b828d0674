"""Checks that read every row, part by part: one part is in memory at a time."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranker_data.columns import Array, Column, Ragged
from ranker_data.doctor.findings import DoctorOptions, Finding
from ranker_data.doctor.label_window import LabelWindow
from ranker_data.layout import SPLITS, behaviors_path, field_columns, samples_path
from ranker_data.preparation.summary import check_history_complete
from ranker_data.reader import DataError, read_behaviors
from ranker_data.schema import Schema
from ranker_data.shard import Shard, read_shard

HashArray = NDArray[np.uint64]
_EVENTS = "behaviors"


@dataclasses.dataclass
class RowCounts:
    """What was counted in one split, or among the behaviours.

    Attributes:
        num_rows: rows that could be read.
        repeated: rows that repeat an earlier one of the same file in all columns.
        in_earlier_split: rows whose user, time and fields are in an earlier split too.
        unknown: id field -> values with id 0.
        values: id field -> values.
        defined: label -> rows where it is defined.
        positive: label -> rows where it is 1.
        moved: id field -> ids that were outside their table and were given another one.
    """

    num_rows: int = 0
    repeated: int = 0
    in_earlier_split: int = 0
    unknown: dict[str, int] = dataclasses.field(default_factory=dict)
    values: dict[str, int] = dataclasses.field(default_factory=dict)
    defined: dict[str, int] = dataclasses.field(default_factory=dict)
    positive: dict[str, int] = dataclasses.field(default_factory=dict)
    moved: dict[str, int] = dataclasses.field(default_factory=dict)


def read_rows(
    root: Path, schema: Schema, num_parts: int, window: LabelWindow | None
) -> tuple[dict[str, RowCounts], list[Finding]]:
    """Reads all parts through the checks of the reader; the first problem of every file counts.

    Args:
        root: the data set.
        schema: of the data set.
        num_parts: number of parts.
        window: counts labels by time; None if the times are not known.

    Returns:
        Counts of the splits and of "behaviors", and the findings.
    """
    counts = {name: RowCounts() for name in (_EVENTS, *SPLITS)}
    findings: list[Finding] = []
    overlapping = 0
    for part in range(num_parts):
        try:
            moved: Counter[str] = Counter()
            behaviors = read_behaviors(behaviors_path(root, part), schema, moved)
        except DataError as error:
            # no sample can be checked without its history
            findings.append(Finding("values", str(error)))
            continue
        tally_events(counts[_EVENTS], behaviors, schema)
        _add_all(counts[_EVENTS].moved, moved)
        overlapping += _read_samples(root, schema, part, counts, findings, window)
    if overlapping:
        findings.append(
            Finding(
                "split_overlap",
                f"{overlapping:,} user(s) have a row in an earlier split that is not earlier than "
                "one in a later split: the model learns from their future",
            )
        )
    return counts, findings


def tally_events(counts: RowCounts, behaviors: Mapping[str, Column], schema: Schema) -> None:
    """Counts events, and those that are there twice."""
    names = ["user", "time", *field_columns(schema.behaviors)]
    counts.num_rows += len(behaviors["user"])
    counts.repeated += _num_repeated(hash_rows([behaviors[name] for name in names]))


def _read_samples(
    root: Path,
    schema: Schema,
    part: int,
    counts: Mapping[str, RowCounts],
    findings: list[Finding],
    window: LabelWindow | None,
) -> int:
    """Counts the samples of a part; returns the users whose splits overlap in time."""
    seen = np.empty(0, np.uint64)
    last: dict[int, int] = {}
    overlapping: set[int] = set()
    for split in SPLITS:
        try:
            shard = read_shard(root, schema, split, part)
            check_history_complete(shard, samples_path(root, split, part))
        except DataError as error:
            check = "history" if "histor" in str(error) or " sees " in str(error) else "values"
            findings.append(Finding(check, str(error)))
            continue
        rows = _sample_hashes(shard, schema)
        _tally_samples(counts[split], shard, schema)
        _add_all(counts[split].moved, shard.moved)
        if window is not None:
            window.add(split, shard)
        counts[split].repeated += _num_repeated(rows.everything)
        counts[split].in_earlier_split += int(np.isin(rows.shown, seen).sum())
        seen = np.concatenate([seen, rows.shown])
        for user, first, end in _times_per_user(shard):
            if user in last and first <= last[user]:
                overlapping.add(user)
            last[user] = max(end, last.get(user, end))
    return len(overlapping)


@dataclasses.dataclass(frozen=True)
class _SampleHashes:
    # of all columns but the sample's number, and of what was shown to whom and when
    everything: HashArray
    shown: HashArray


def _sample_hashes(shard: Shard, schema: Schema) -> _SampleHashes:
    shown = hash_rows(
        [shard.samples[name] for name in ("user", "time", *field_columns(schema.fields))]
    )
    labels = [shard.samples[label.name] for label in schema.labels]
    everything = hash_rows([shown.view(np.int64), shard.samples["request"], *labels])
    return _SampleHashes(everything, shown)


def _tally_samples(counts: RowCounts, shard: Shard, schema: Schema) -> None:
    counts.num_rows += len(shard.plain("user"))
    for field in schema.fields:
        if field.kind != "dense":
            column = shard.samples[field.name]
            values = column.values if isinstance(column, Ragged) else column
            _add(counts.values, field.name, len(values))
            _add(counts.unknown, field.name, int((values == 0).sum()))
    for label in schema.labels:
        target = shard.plain(label.name)
        _add(counts.defined, label.name, int((~np.isnan(target)).sum()))
        _add(counts.positive, label.name, int((target == 1).sum()))


def _add(counts: dict[str, int], name: str, number: int) -> None:
    counts[name] = counts.get(name, 0) + number


def _add_all(counts: dict[str, int], numbers: Mapping[str, int]) -> None:
    for name, number in numbers.items():
        _add(counts, name, number)


def _times_per_user(shard: Shard) -> Iterator[tuple[int, int, int]]:
    """Yields user, first and last time; rows are sorted by user and time."""
    user, time = shard.plain("user"), shard.plain("time")
    starts = np.flatnonzero(np.diff(user, prepend=-1 if len(user) else 0))
    ends = np.append(starts[1:], len(user)) - 1
    yield from zip(user[starts].tolist(), time[starts].tolist(), time[ends].tolist(), strict=True)


def hash_rows(columns: list[Column]) -> HashArray:
    """Returns 64 bits of every row; a list counts with the order of its values."""
    result = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        result = _mix(result ^ _hash_column(column))
    return result


def _hash_column(column: Column) -> HashArray:
    if not isinstance(column, Ragged):
        return _mix(_bits(column))
    hashed = _mix(_bits(column.values))
    place = np.arange(len(hashed)) - np.repeat(column.offsets[:-1], column.lengths)
    hashed = _mix(hashed + place.astype(np.uint64))
    # wraps around, and so do the differences
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashed, dtype=np.uint64)])
    found: HashArray = sums[column.offsets[1:]] - sums[column.offsets[:-1]]
    return found + column.lengths.astype(np.uint64)


def _bits(values: Array) -> HashArray:
    wide = values.astype(np.float64) if values.dtype.kind == "f" else values.astype(np.int64)
    bits: HashArray = wide.view(np.uint64)
    return bits


def _mix(bits: HashArray) -> HashArray:
    """The finaliser of splitmix64 (Steele et al. 2014): each bit moves half of all."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _num_repeated(hashes: HashArray) -> int:
    return len(hashes) - len(np.unique(hashes))


def check_counts(
    counts: Mapping[str, RowCounts], schema: Schema, options: DoctorOptions
) -> Iterator[Finding]:
    """Judges what was counted."""
    for name, found in counts.items():
        if found.repeated > options.max_duplicate_share * max(found.num_rows, 1):
            share = found.repeated / found.num_rows
            yield Finding(
                "duplicates",
                f"{name}: {found.repeated:,} of {found.num_rows:,} rows ({share:.1%}) repeat "
                "another one in every column; drop them if they were logged twice",
            )
        if found.in_earlier_split:
            yield Finding(
                "contamination",
                f"{name}: {found.in_earlier_split:,} of {found.num_rows:,} rows are in an earlier "
                "split too (same user, time and fields)",
            )
        for field, number in found.moved.items():
            yield Finding(
                "moved_ids",
                f"{name}: {number:,} ids of {field!r} are outside their table and were moved into "
                "it (out_of_range of the table); raise its num_embeddings",
            )
        for field, number in found.unknown.items():
            total = found.values[field]
            if number > options.max_unknown_share * max(total, 1):
                yield Finding(
                    "unknown_ids",
                    f"{name}: {number / total:.0%} of the ids of {field!r} are 0 (unknown, rare or "
                    "missing); lower its min_count, or prepare with newer data",
                )
    for split in SPLITS:
        for label in schema.labels:
            defined = counts[split].defined.get(label.name, 0)
            positive = counts[split].positive.get(label.name, 0)
            if defined and positive in (0, defined):
                yield Finding(
                    "label_rate",
                    f"{split}: all {defined:,} values of label {label.name!r} are "
                    f"{int(positive > 0)}; nothing can be learned or measured",
                )
