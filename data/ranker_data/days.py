"""A prepared data set, day by day: one split for each day of its samples.

The event log stays as it is: a sample points at events that are strictly earlier than itself,
whichever split it is in.
"""

import datetime
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker_data.layout import behaviors_path, part_name, samples_arrow_schema, samples_path
from ranker_data.reader import DataError, list_parts
from ranker_data.schema import Field, Schema

DAYS_FILE = "days.json"
_UNITS_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}
_EPOCH = datetime.date(1970, 1, 1)


def split_days(root: Path, schema: Schema, splits: Sequence[str]) -> dict[str, int]:
    """Writes the samples of some splits anew, one split for each day (UTC), named 2024-02-28.

    What was written before is taken as it is if it was made of the same splits.

    Args:
        root: the prepared data set.
        schema: of it.
        splits: whose samples are taken.

    Returns:
        Number of samples by day, in order.

    Raises:
        DataError: a split is missing, or the folder cannot be written.
    """
    marker = root / DAYS_FILE
    if marker.is_file():
        known = json.loads(marker.read_text())
        if known["splits"] == list(splits):
            days: dict[str, int] = known["days"]
            return days
    counts: dict[str, int] = {}
    temporary = root / "samples" / ".tmp-days"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        num_parts = len(list_parts(root / "behaviors"))
        for part in range(num_parts):
            for day, rows in _days_of_part(root, schema, splits, part):
                folder = temporary / day
                folder.mkdir(parents=True, exist_ok=True)
                pq.write_table(rows, folder / part_name(part), write_page_checksum=True)
                counts[day] = counts.get(day, 0) + rows.num_rows
        counts = dict(sorted(counts.items()))
        empty = samples_arrow_schema(schema).empty_table()
        for day in counts:
            for part in range(num_parts):
                if not (temporary / day / part_name(part)).exists():
                    pq.write_table(empty, temporary / day / part_name(part))
            shutil.rmtree(root / "samples" / day, ignore_errors=True)
            (temporary / day).rename(root / "samples" / day)
        temporary.rmdir()
        # last, so that a split that was interrupted is made again
        marker.write_text(json.dumps({"splits": list(splits), "days": counts}, indent=1))
    except OSError as error:
        raise DataError(
            f"the days of {root} cannot be written ({error.strerror}); give dataset.path=<a copy "
            "that you may write to>"
        ) from error
    return counts


def _days_of_part(
    root: Path, schema: Schema, splits: Sequence[str], part: int
) -> Iterator[tuple[str, pa.Table]]:
    columns = samples_arrow_schema(schema)
    table = pa.concat_tables(
        pq.read_table(samples_path(root, split, part), columns=columns.names, partitioning=None)
        for split in splits
    ).cast(columns)
    table = table.sort_by([("user", "ascending"), ("time", "ascending")])
    days = table["time"].to_numpy() // _UNITS_PER_DAY[schema.time_unit]
    for day in np.unique(days):
        yield name_of_day(int(day)), table.filter(pa.array(days == day))


def name_of_day(day: int) -> str:
    """Returns the date of a day, counted from 1970-01-01."""
    return (_EPOCH + datetime.timedelta(days=day)).isoformat()


def count_ids(root: Path, schema: Schema, day: str) -> dict[str, NDArray[np.int64]]:
    """Returns how often each id of each table occurs in the samples and events of a day.

    Tables without a vocabulary are left out.
    """
    counts = {
        table.name: np.zeros(table.num_embeddings, np.int64)
        for table in schema.tables
        if table.num_embeddings is not None
    }
    number = (datetime.date.fromisoformat(day) - _EPOCH).days
    unit = _UNITS_PER_DAY[schema.time_unit]
    for part in range(len(list_parts(root / "behaviors"))):
        samples = pq.read_table(samples_path(root, day, part), partitioning=None)
        events = pq.read_table(behaviors_path(root, part), partitioning=None)
        begin, end = number * unit, (number + 1) * unit
        time = events["time"]
        events = events.filter(pc.and_(pc.greater_equal(time, begin), pc.less(time, end)))
        _add(counts, samples, schema.fields)
        _add(counts, events, schema.behaviors)
    return counts


def _add(counts: dict[str, NDArray[np.int64]], table: pa.Table, fields: Sequence[Field]) -> None:
    for field in fields:
        if field.table not in counts:
            continue
        column = table[field.name]
        if field.kind == "ids":
            column = pc.list_flatten(column)
        size = len(counts[field.table])
        counts[field.table] += np.bincount(column.to_numpy(), minlength=size)
