"""The keys of a batch's jagged ids, in their order."""

import dataclasses
from typing import Literal

from ranker_data.schema import Field, Schema

BEHAVIOR_PREFIX = "behavior."

Axis = Literal["user", "behavior", "candidate"]


@dataclasses.dataclass(frozen=True)
class BatchKey:
    """A key, the axis whose entries have ids under it, and the field that they come from."""

    name: str
    axis: Axis
    field: Field


def batch_keys(schema: Schema) -> tuple[BatchKey, ...]:
    """Returns the keys: of users, then of behaviours, then of candidates."""
    keys = [BatchKey(field.name, "user", field) for field in schema.fields_of("user")]
    keys += [BatchKey(BEHAVIOR_PREFIX + f.name, "behavior", f) for f in schema.behaviors]
    keys += [BatchKey(field.name, "candidate", field) for field in schema.candidate_fields]
    return tuple(key for key in keys if key.field.kind != "dense")
