"""Builds blocks of batches out of packed arrays.

Sorts the samples by user, stores each user's behaviours once, lays ids out as a jagged tensor.
"""

import dataclasses
from typing import Any

import numpy as np

from ranker_data.arena import Arena, ArenaPool
from ranker_data.batch_keys import Axis, BatchKey, batch_keys
from ranker_data.block import Block
from ranker_data.columns import Array, IntArray, expand_ranges, offsets_of
from ranker_data.packed import Arrays
from ranker_data.schema import Schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Frame:
    """The rows of a block on the three axes.

    Attributes:
        records: [C] the samples.
        counts: [U] candidates of each user.
        first_of_user: [U] first candidate of each user.
        user_of: [C] user of each candidate.
        windows: [C, 2] on the block's behaviour axis.
        events: [N] event of each behaviour.
        behavior_begins: [U + 1] where each user's behaviours begin, and their number.
        bounds: axis -> [T + 1] where each batch begins on the axis, and the end.
    """

    records: Array
    counts: IntArray
    first_of_user: IntArray
    user_of: IntArray
    windows: IntArray
    events: IntArray
    behavior_begins: IntArray
    bounds: dict[Axis, IntArray]


class Collator:
    """Builds the blocks of one schema.

    Args:
        schema: of the data set.
        max_length: a sample sees at most this many of its latest behaviours.
    """

    def __init__(self, schema: Schema, *, max_length: int) -> None:
        self._schema = schema
        self._max_length = max_length
        self._keys = batch_keys(schema)
        self._scratch = ArenaPool()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_scratch": ArenaPool()}

    def __call__(
        self, arrays: Arrays, records: Array, batch_sizes: IntArray, arena: Arena
    ) -> Block:
        """Builds a block.

        Args:
            arrays: packed arrays, see `packed.py`.
            records: [C] the samples, batch after batch, and in each batch users together, their
                samples in the order of time.
            batch_sizes: [T] number of samples in each batch, none of them 0.
            arena: memory for the block.
        """
        frame = self._frame(records, batch_sizes)
        rows = {
            "user": records.take(frame.first_of_user),
            "behavior": self._scratch.borrow().take(arrays["events"], frame.events),
            "candidate": records,
        }
        columns = [_IdColumn.gather(key, arrays, rows[key.axis], frame) for key in self._keys]
        values, lengths, value_bounds = _lay_out(columns, frame, arena)
        return Block(
            candidates=self._candidates(frame, batch_sizes, arena),
            users={"user_dense": arena.copy(rows["user"]["user_dense"])},
            behaviors={
                "behavior_time": arena.copy(rows["behavior"]["time"]),
                "behavior_dense": arena.copy(rows["behavior"]["dense"]),
            },
            bags={c.key.name: arena.copy(c.bags) for c in columns if c.bags is not None},
            weights={c.key.name: arena.copy(c.weights) for c in columns if c.weights is not None},
            values=values,
            lengths=lengths,
            candidate_bounds=frame.bounds["candidate"],
            user_bounds=frame.bounds["user"],
            behavior_bounds=frame.bounds["behavior"],
            value_bounds=value_bounds,
        )

    def _frame(self, records: Array, batch_sizes: IntArray) -> _Frame:
        candidate_bounds = offsets_of(batch_sizes)
        user = records["user"]
        new_user = np.empty(len(records), np.bool_)
        np.not_equal(user[1:], user[:-1], out=new_user[1:])
        new_user[candidate_bounds[:-1]] = True
        user_of = np.cumsum(new_user) - 1
        first_of_user = np.flatnonzero(new_user)
        counts = np.diff(first_of_user, append=len(records))

        # A user's windows begin and end in the order of time. They are merged into disjoint
        # stretches of the event log: an event that several candidates see is there once, and one
        # that none sees is not there.
        end = records["end"]
        begin = np.maximum(records["first"], end - self._max_length)
        opens = new_user.copy()
        opens[1:] |= begin[1:] > end[:-1]
        stretch_of = np.cumsum(opens) - 1
        first_of_stretch = np.flatnonzero(opens)
        first = begin[first_of_stretch]
        last_of_stretch = np.append(first_of_stretch[1:], len(records)) - 1
        lengths = end[last_of_stretch] - first
        base = offsets_of(lengths)
        shift = (base[:-1] - first)[stretch_of]
        behavior_begins = np.append(base[stretch_of[first_of_user]], base[-1])

        user_bounds = np.append(user_of[candidate_bounds[:-1]], len(counts))
        return _Frame(
            records=records,
            counts=counts,
            first_of_user=first_of_user,
            user_of=user_of,
            windows=np.stack([begin + shift, end + shift], axis=1),
            events=expand_ranges(first, lengths),
            behavior_begins=behavior_begins,
            bounds={
                "candidate": candidate_bounds,
                "user": user_bounds,
                "behavior": behavior_begins[user_bounds],
            },
        )

    def _candidates(self, frame: _Frame, batch_sizes: IntArray, arena: Arena) -> dict[str, Array]:
        records, bounds = frame.records, frame.bounds
        labels, mask = arena.copy(records["labels"]), arena.empty(records["labels"].shape, "f4")
        undefined = np.isnan(labels)
        np.logical_not(undefined, out=mask)
        labels[undefined] = 0
        user_of = arena.copy(frame.user_of)
        user_of -= np.repeat(bounds["user"][:-1], batch_sizes)
        windows = arena.copy(frame.windows)
        windows -= np.repeat(bounds["behavior"][:-1], batch_sizes)[:, None]
        names = ("time", "sample_id", "user", "request", "truths")
        return {
            **{name: arena.copy(records[name]) for name in names},
            "weights": arena.copy(records["weight"]),
            "candidate_dense": arena.copy(records["dense"]),
            "user_of": user_of,
            "windows": windows,
            "labels": labels,
            "label_mask": mask,
            "domain": self._domain(records, arena),
        }

    def _domain(self, records: Array, arena: Arena) -> Array:
        if self._schema.domain is not None:
            return arena.copy(records[f"id:{self._schema.domain}"], np.int64)
        domain = arena.empty((len(records),), np.int64)
        domain[:] = 0
        return domain


@dataclasses.dataclass(frozen=True)
class _IdColumn:
    """The ids of one key in a block.

    Attributes:
        key: what it is.
        values: ids, in the order of the axis.
        begins: [U + 1] where each user's ids begin in `values`, and their number.
        bags: ids of each entry of the axis if the key is multi-valued.
        weights: of the ids, if the key is weighted.
    """

    key: BatchKey
    values: Array
    begins: IntArray
    bags: IntArray | None = None
    weights: Array | None = None

    @classmethod
    def gather(cls, key: BatchKey, arrays: Arrays, rows: Array, frame: _Frame) -> "_IdColumn":
        """Returns the ids of a key; `rows` are the records of its axis."""
        name = key.field.name
        begins = {
            "user": np.arange(len(frame.counts) + 1),
            "behavior": frame.behavior_begins,
            "candidate": offsets_of(frame.counts),
        }[key.axis]
        if key.field.kind == "id":
            return cls(key, rows[f"id:{name}"], begins)
        bags = rows[f"length:{name}"].astype(np.int64)
        relation = "events" if key.axis == "behavior" else "samples"
        index = expand_ranges(rows[f"begin:{name}"], bags)
        values = arrays[f"list:{relation}:{name}"].take(index)
        weights = arrays[f"weight:{name}"].take(index) if key.field.weighted else None
        return cls(key, values, offsets_of(bags)[begins], bags, weights)


def _lay_out(
    columns: list[_IdColumn], frame: _Frame, arena: Arena
) -> tuple[IntArray, IntArray, IntArray]:
    """Returns values, lengths and value bounds of a block: batch after batch, key after key."""
    users = frame.bounds["user"]
    num_batches, num_keys = len(users) - 1, len(columns)
    # [keys, T + 1] bounds of each batch in the values of each key
    bounds = np.stack([column.begins[users] for column in columns])
    sizes = np.diff(bounds).T
    ends = np.cumsum(sizes).reshape(num_batches, num_keys)
    value_bounds = np.empty((num_batches, num_keys + 1), np.int64)
    value_bounds[:, 1:] = ends
    value_bounds[:, :-1] = ends - sizes
    values = arena.empty((int(value_bounds[-1, -1]),), np.int64)
    lengths = arena.empty((num_keys * len(frame.counts),), np.int64)
    lengths_of_key = np.stack([np.diff(column.begins) for column in columns])
    for t in range(num_batches):
        for k, column in enumerate(columns):
            begin, end = value_bounds[t, k : k + 2]
            values[begin:end] = column.values[bounds[k, t] : bounds[k, t + 1]]
        begin, end = users[t : t + 2]
        block = lengths[num_keys * begin : num_keys * end].reshape(num_keys, end - begin)
        block[:] = lengths_of_key[:, begin:end]
    return values, lengths, value_bounds
