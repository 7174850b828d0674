"""The packed form of checked data: a record per sample and a record per event.

Batches are gathered out of these arrays, whether they are in memory or mapped from the cache. A
record keeps what is read together together: a history is one stretch of memory.

    samples                   keys, the range of events that the sample may see, fields, labels
    events                    time and fields
    list:<relation>:<field>   the values of a multi-valued field, one behind the other; a record
                              says where its own begin and how many they are
    weight:<field>            the weights of the values, if the field has any

Ids take four bytes where their table allows it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ranker_data.columns import Array, Column, IntArray, Ragged, plain
from ranker_data.layout import truth_columns, weights_column
from ranker_data.reader import PartSize
from ranker_data.schema import Field, Schema
from ranker_data.shard import Shard

ROWS = ""
KEYS = ("sample_id", "user", "time", "request", "first", "end")

Arrays = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """A packed array.

    Attributes:
        dtype: of a record, or of a value.
        axis: what has one entry: `ROWS`, or the name of the multi-valued field whose values they
            are.
    """

    dtype: np.dtype[Any]
    axis: str = ROWS


def id_dtype(schema: Schema, field: Field) -> type[np.int32] | type[np.int64]:
    """Returns the smallest integer that holds all ids of a field's table."""
    assert field.table is not None
    size = schema.table(field.table).num_embeddings
    return np.int32 if size is not None and size <= 2**31 else np.int64


def sample_specs(schema: Schema) -> dict[str, ArraySpec]:
    """Returns the packed arrays of samples."""
    columns: list[tuple[str, Any]] = [(name, np.int64) for name in KEYS]
    columns += [
        ("truths", (np.float64, (len(truth_columns(schema)),))),
        ("weight", np.float32),
        ("labels", (np.float32, (len(schema.labels),))),
        ("user_dense", (np.float32, (len(dense_fields(schema.fields_of("user"))),))),
        ("dense", (np.float32, (len(dense_fields(schema.candidate_fields)),))),
    ]
    return _specs(schema, "samples", schema.fields, columns)


def event_specs(schema: Schema) -> dict[str, ArraySpec]:
    """Returns the packed arrays of events."""
    dense = len(dense_fields(schema.behaviors))
    columns = [("time", np.int64), ("dense", (np.float32, (dense,)))]
    return _specs(schema, "events", schema.behaviors, columns)


def _specs(
    schema: Schema, relation: str, fields: tuple[Field, ...], columns: list[tuple[str, Any]]
) -> dict[str, ArraySpec]:
    lists = {}
    for field in fields:
        if field.kind == "id":
            columns.append((f"id:{field.name}", id_dtype(schema, field)))
        elif field.kind == "ids":
            columns.append((f"begin:{field.name}", np.int64))
            columns.append((f"length:{field.name}", np.int32))
            dtype = np.dtype(id_dtype(schema, field))
            lists[f"list:{relation}:{field.name}"] = ArraySpec(dtype, field.name)
            if field.weighted:
                lists[f"weight:{field.name}"] = ArraySpec(np.dtype(np.float32), field.name)
    # wide columns first: nothing between them is wasted on alignment
    columns.sort(key=lambda column: -np.dtype(column[1]).base.itemsize)
    names, formats = [name for name, _ in columns], [kind for _, kind in columns]
    record = np.dtype({"names": names, "formats": formats}, align=True)
    return {relation: ArraySpec(record), **lists}


def dense_fields(fields: tuple[Field, ...]) -> list[str]:
    """Returns the names of the dense ones among some fields."""
    return [field.name for field in fields if field.kind == "dense"]


def pack_events(schema: Schema, shard: Shard, out: Arrays, base: Mapping[str, int]) -> None:
    """Writes the events of one part.

    Args:
        schema: of the data.
        shard: the part, checked.
        out: the part's share of every array, see `event_specs`.
        base: position of the share in the arrays, by axis.
    """
    out["events"]["time"] = plain(shard.behaviors["time"])
    _pack_group(out["events"]["dense"], shard.behaviors, dense_fields(schema.behaviors))
    _pack_ids(schema.behaviors, shard.behaviors, "events", out, base)


def pack_samples(
    schema: Schema, shard: Shard, out: Arrays, base: Mapping[str, int], event_base: int
) -> None:
    """Writes the samples of one part; as `pack_events`, and `event_base` is its first event."""
    columns, records = shard.samples, out["samples"]
    for name in ("sample_id", "user", "time", "request", "weight"):
        records[name] = plain(columns[name])
    records["first"] = shard.first_event + event_base
    records["end"] = shard.end_event + event_base
    _pack_group(records["labels"], columns, [label.name for label in schema.labels])
    _pack_group(records["truths"], columns, truth_columns(schema))
    _pack_group(records["user_dense"], columns, dense_fields(schema.fields_of("user")))
    _pack_group(records["dense"], columns, dense_fields(schema.candidate_fields))
    _pack_ids(schema.fields, columns, "samples", out, base)


def _pack_group(out: Array, columns: dict[str, Column], names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        out[:, i] = plain(columns[name])


def _pack_ids(
    fields: tuple[Field, ...],
    columns: dict[str, Column],
    relation: str,
    out: Arrays,
    base: Mapping[str, int],
) -> None:
    records = out[relation]
    for field in fields:
        column = columns[field.name]
        if isinstance(column, Ragged):
            records[f"begin:{field.name}"] = column.offsets[:-1] + base[field.name]
            records[f"length:{field.name}"] = column.lengths
            out[f"list:{relation}:{field.name}"][: len(column.values)] = column.values
            if field.weighted:
                weights = columns[weights_column(field)]
                assert isinstance(weights, Ragged)
                out[f"weight:{field.name}"][: len(weights.values)] = weights.values
        elif field.kind == "id":
            records[f"id:{field.name}"] = column


def size_of(part: PartSize, axis: str) -> int:
    """Returns the entries that a part needs on an axis."""
    return part.num_rows if axis == ROWS else part.num_values[axis]


def bases_of(parts: list[PartSize], axis: str) -> IntArray:
    """Returns where each part begins on an axis, one part behind the other, and the end."""
    return np.cumsum([0] + [size_of(part, axis) for part in parts], dtype=np.int64)
