"""Where a prepared data set keeps its files, and the columns that they have.

    <root>/schema.yaml
    <root>/stats.json
    <root>/behaviors/part-00000.parquet         one row per past event, sorted by (user, time)
    <root>/samples/<split>/part-00000.parquet   one row per impression, sorted by (user, time)

Part *i* of the samples refers only to users in part *i* of the behaviours. `history_end` counts the
user's events that are strictly earlier than the sample, so a sample's history is the range [0,
history_end) of its user.
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from ranker_data.schema import WEIGHTS_SUFFIX, Field, Schema

STATS_FILE = "stats.json"
SPLITS = ("train", "valid", "test")

BEHAVIOR_KEYS = {"user": pa.int64(), "time": pa.int64()}
SAMPLE_KEYS = {
    "sample_id": pa.int64(),
    "user": pa.int64(),
    "time": pa.int64(),
    "request": pa.int64(),
    "history_end": pa.int64(),
}


def part_name(part: int) -> str:
    """Returns the file name of a part."""
    return f"part-{part:05d}.parquet"


def behaviors_path(root: Path, part: int) -> Path:
    """Returns the file with the events of part `part`."""
    return root / "behaviors" / part_name(part)


def samples_path(root: Path, split: str, part: int) -> Path:
    """Returns the file with the samples of part `part` of one split."""
    return root / "samples" / split / part_name(part)


def behaviors_arrow_schema(schema: Schema) -> pa.Schema:
    """Returns the columns of a behaviours file."""
    columns = dict(BEHAVIOR_KEYS)
    columns.update(field_columns(schema.behaviors))
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def samples_arrow_schema(schema: Schema) -> pa.Schema:
    """Returns the columns of a samples file.

    They are keys, fields, labels (nullable), weight and true probabilities.
    """
    columns = {name: pa.field(name, kind, nullable=False) for name, kind in SAMPLE_KEYS.items()}
    for name, kind in field_columns(schema.fields).items():
        columns[name] = pa.field(name, kind, nullable=False)
    for label in schema.labels:
        columns[label.name] = pa.field(label.name, pa.float32())
    columns["weight"] = pa.field("weight", pa.float32(), nullable=False)
    for name in truth_columns(schema):
        columns[name] = pa.field(name, pa.float64())
    return pa.schema(list(columns.values()))


def truth_columns(schema: Schema) -> tuple[str, ...]:
    """Returns the columns with true probabilities, which only simulated data has."""
    names = [label.truth for label in schema.labels] + [task.truth for task in schema.tasks]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def weights_column(field: Field) -> str:
    """Returns the column with the weights of a weighted field's ids."""
    return f"{field.name}{WEIGHTS_SUFFIX}"


def field_columns(fields: Iterable[Field]) -> dict[str, pa.DataType]:
    """Returns the columns of fields, in their order; a weighted field has two."""
    columns: dict[str, pa.DataType] = {}
    for field in fields:
        columns[field.name] = _ARROW_TYPES[field.kind]
        if field.weighted:
            columns[weights_column(field)] = pa.list_(pa.float32())
    return columns


_ARROW_TYPES = {"id": pa.int64(), "ids": pa.list_(pa.int64()), "dense": pa.float32()}
