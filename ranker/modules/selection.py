"""Behaviours of one kind, so that clicks and carts can be sequences of their own."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ranker.slots import SequenceInputs
from ranker_data.batch import BEHAVIOR_PREFIX, RankingBatch
from ranker_data.schema import Schema

Where = Mapping[str, Sequence[int]]


def check_where(option: str, where: Where, schema: Schema) -> None:
    """Checks a selection of behaviours.

    Args:
        option: key of the configuration that holds it.
        where: ids by behaviour field.
        schema: of the data set.

    Raises:
        ValueError: a field is no single-valued id field of the behaviours, or has no such ids.
    """
    tables = {field.name: field.table for field in schema.behaviors if field.kind == "id"}
    for name, ids in where.items():
        table = tables.get(name)
        if table is None:
            raise ValueError(
                f"{option} names {name!r}; it must be an id field of the behaviors: "
                f"{', '.join(tables)}"
            )
        size = schema.table(table).num_embeddings
        for value in ids:
            if value < 0 or (size is not None and value >= size):
                raise ValueError(f"{option}.{name} has the id {value}; ids are in [0, {size})")
        if not ids:
            raise ValueError(f"{option}.{name} is empty; list the ids that the encoder sees")


def matching_behaviors(batch: RankingBatch, where: Where) -> Tensor:
    """Returns bool [N]: the behaviours that have one of the given ids in each of the fields."""
    keep = torch.ones(batch.num_behaviors, dtype=torch.bool, device=batch.windows.device)
    for name, ids in where.items():
        values = batch.ids[BEHAVIOR_PREFIX + name].values()
        # a handful of ids; as a tensor they would be copied to the device in every step
        matches = torch.zeros_like(keep)
        for value in ids:
            matches |= values == value
        keep &= matches
    return keep


def select_behaviors(inputs: SequenceInputs, keep: Tensor) -> SequenceInputs:
    """Leaves the other behaviours out; windows become the ranges of what is left of them.

    Args:
        inputs: of an encoder, with N behaviours.
        keep: bool [N].
    """
    rows = keep.nonzero()[:, 0]
    place = torch.nn.functional.pad(keep.cumsum(0), (1, 0))
    return dataclasses.replace(
        inputs,
        behaviors=inputs.behaviors[rows],
        cross=inputs.cross[rows],
        windows=place[inputs.windows],
        behavior_time=inputs.behavior_time[rows],
        log_size=None if inputs.log_size is None else inputs.log_size[rows],
    )
