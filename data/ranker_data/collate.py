"""Builds blocks of batches out of packed arrays.

Samples come sorted by user. Each user's behaviours are stored once, ids are laid out as a jagged
tensor: batch after batch, key after key.
"""

import dataclasses
from typing import Any

import numpy as np

from ranker_data.arena import Arena, ArenaPool
from ranker_data.batch_keys import Axis, BatchKey, batch_keys
from ranker_data.block import Block
from ranker_data.columns import Array, IntArray, offsets_of
from ranker_data.gather import Gather, Ranges, Target
from ranker_data.packed import Arrays
from ranker_data.schema import Schema

# axis -> array of a block -> column of the records
_COLUMNS: dict[Axis, dict[str, str]] = {
    "user": {"user_dense": "user_dense"},
    "behavior": {"behavior_time": "time", "behavior_dense": "dense"},
    "candidate": {
        **{name: name for name in ("time", "sample_id", "user", "request", "truths", "labels")},
        "weights": "weight",
        "candidate_dense": "dense",
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Frame:
    """The rows of a block on the three axes.

    Attributes:
        rows: axis -> its records: of the candidates [C], of the first candidate of each user [U],
            and of events, in stretches.
        bounds: axis -> [T + 1] where each batch begins on the axis, and the end.
        begins: axis -> [U + 1] where each user begins on the axis, and the end.
        user_of: [C] user of each candidate in its batch.
        windows: [C, 2] on the behaviour axis of the batch.
    """

    rows: dict[Axis, Ranges]
    bounds: dict[Axis, IntArray]
    begins: dict[Axis, IntArray]
    user_of: IntArray
    windows: IntArray


class Collator:
    """Builds the blocks of one schema.

    Args:
        schema: of the data set.
        max_length: a sample sees at most this many of its latest behaviours.
        gather: copies records.
    """

    def __init__(self, schema: Schema, *, max_length: int, gather: Gather) -> None:
        self._domain = schema.domain
        self._max_length = max_length
        self._gather = gather
        self._keys = batch_keys(schema)
        self._scratch = ArenaPool()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_scratch": ArenaPool()}

    def __call__(
        self, arrays: Arrays, samples: Array, rows: IntArray, batch_sizes: IntArray, arena: Arena
    ) -> Block:
        """Builds a block.

        Args:
            arrays: packed arrays, see `packed.py`.
            samples: records of samples.
            rows: [C] those of the block, batch after batch, and in each batch users together, their
                samples in the order of time.
            batch_sizes: [T] number of samples in each batch, none of them 0.
            arena: memory for the block.
        """
        scratch = self._scratch.borrow()
        records: dict[Axis, Array] = {
            "user": samples,
            "behavior": arrays["events"],
            "candidate": samples,
        }
        frame = self._frame(samples, rows, batch_sizes, arena, scratch)
        bags = {
            key.name: self._bags(key, records[key.axis], frame, arena, scratch)
            for key in self._keys
            if key.field.kind == "ids"
        }
        begins = [
            offsets_of(_lengths(bags[key.name]))[frame.begins[key.axis]]
            if key.name in bags
            else frame.begins[key.axis]
            for key in self._keys
        ]
        values, lengths, value_bounds = _lay_out(begins, frame.bounds["user"], arena)
        weights = self._gather_lists(arrays, bags, values, value_bounds, arena)
        blocks = {axis: self._allocate(axis, records[axis], frame, arena) for axis in _COLUMNS}
        for axis, block in blocks.items():
            targets = [Target(_COLUMNS[axis][name], out) for name, out in block.items()]
            targets += [
                Target(f"id:{key.field.name}", values, value_bounds[:, k])
                for k, key in enumerate(self._keys)
                if key.axis == axis and key.name not in bags
            ]
            self._gather(records[axis], frame.rows[axis], targets)
        candidates = blocks["candidate"]
        candidates["label_mask"] = _mask(candidates["labels"], arena)
        candidates["domain"] = self._domains(samples, frame, arena)
        return Block(
            candidates={**candidates, "user_of": frame.user_of, "windows": frame.windows},
            users=blocks["user"],
            behaviors=blocks["behavior"],
            bags={name: _lengths(bag) for name, bag in bags.items()},
            weights=weights,
            values=values,
            lengths=lengths,
            candidate_bounds=frame.bounds["candidate"],
            user_bounds=frame.bounds["user"],
            behavior_bounds=frame.bounds["behavior"],
            value_bounds=value_bounds,
        )

    def _frame(
        self, samples: Array, rows: IntArray, batch_sizes: IntArray, arena: Arena, scratch: Arena
    ) -> _Frame:
        candidate_bounds = offsets_of(batch_sizes)
        candidates = Ranges(rows, candidate_bounds)
        user, first, end = (scratch.empty(rows.shape, np.int64) for _ in range(3))
        keys = [Target("user", user), Target("first", first), Target("end", end)]
        self._gather(samples, candidates, keys)
        opens = np.empty(len(rows), np.bool_)
        np.not_equal(user[1:], user[:-1], out=opens[1:])
        opens[candidate_bounds[:-1]] = True
        first_of_user = np.flatnonzero(opens)
        user_of = arena.empty(rows.shape, np.int64)
        np.cumsum(opens, out=user_of)
        user_of -= 1
        user_bounds = np.append(user_of[candidate_bounds[:-1]], len(first_of_user))
        user_of -= np.repeat(user_bounds[:-1], batch_sizes)

        # A user's windows begin and end in the order of time. They are merged into disjoint
        # stretches of the event log: an event that several candidates see is there once, and one
        # that none sees is not there.
        begin = np.maximum(first, end - self._max_length, out=first)
        opens[1:] |= begin[1:] > end[:-1]
        first_of_stretch = np.flatnonzero(opens)
        stretch_of = np.cumsum(opens) - 1
        begins = begin[first_of_stretch]
        last_of_stretch = np.append(first_of_stretch[1:], len(rows)) - 1
        lengths = end[last_of_stretch] - begins
        offsets = offsets_of(lengths)
        behavior_begins = np.append(offsets[stretch_of[first_of_user]], offsets[-1])
        behavior_bounds = behavior_begins[user_bounds]
        shift = (offsets[:-1] - begins)[stretch_of]
        shift -= np.repeat(behavior_bounds[:-1], batch_sizes)
        windows = arena.empty((len(rows), 2), np.int64)
        np.add(begin, shift, out=windows[:, 0])
        np.add(end, shift, out=windows[:, 1])

        stretch_bounds = np.append(stretch_of[candidate_bounds[:-1]], len(lengths))
        return _Frame(
            rows={
                "user": Ranges(rows[first_of_user], user_bounds),
                "behavior": Ranges(begins, stretch_bounds, lengths),
                "candidate": candidates,
            },
            bounds={
                "user": user_bounds,
                "behavior": behavior_bounds,
                "candidate": candidate_bounds,
            },
            begins={
                "user": np.arange(len(first_of_user) + 1),
                "behavior": behavior_begins,
                "candidate": np.append(first_of_user, len(rows)),
            },
            user_of=user_of,
            windows=windows,
        )

    def _bags(
        self, key: BatchKey, records: Array, frame: _Frame, arena: Arena, scratch: Arena
    ) -> Ranges:
        """Returns where the ids of a multi-valued key are, for each entry of its axis."""
        count = int(frame.bounds[key.axis][-1])
        begins, lengths = scratch.empty((count,), np.int64), arena.empty((count,), np.int64)
        targets = [
            Target(f"begin:{key.field.name}", begins),
            Target(f"length:{key.field.name}", lengths),
        ]
        self._gather(records, frame.rows[key.axis], targets)
        return Ranges(begins, frame.bounds[key.axis], lengths)

    def _gather_lists(
        self,
        arrays: Arrays,
        bags: dict[str, Ranges],
        values: IntArray,
        value_bounds: IntArray,
        arena: Arena,
    ) -> dict[str, Array]:
        """Copies the ids of the multi-valued keys, and returns the weights of the weighted ones."""
        weights = {}
        for k, key in enumerate(self._keys):
            if key.name not in bags:
                continue
            bag, name = bags[key.name], key.field.name
            relation = "events" if key.axis == "behavior" else "samples"
            target = Target(None, values, value_bounds[:, k])
            self._gather(arrays[f"list:{relation}:{name}"], bag, [target])
            if key.field.weighted:
                weights[key.name] = arena.empty((int(_lengths(bag).sum()),), np.float32)
                self._gather(arrays[f"weight:{name}"], bag, [Target(None, weights[key.name])])
        return weights

    def _allocate(
        self, axis: Axis, records: Array, frame: _Frame, arena: Arena
    ) -> dict[str, Array]:
        count = int(frame.bounds[axis][-1])
        kinds = {name: records.dtype[column] for name, column in _COLUMNS[axis].items()}
        return {name: arena.empty((count, *k.shape), k.base) for name, k in kinds.items()}

    def _domains(self, samples: Array, frame: _Frame, arena: Arena) -> IntArray:
        domain = arena.empty((len(frame.user_of),), np.int64)
        if self._domain is None:
            domain[:] = 0
        else:
            target = Target(f"id:{self._domain}", domain)
            self._gather(samples, frame.rows["candidate"], [target])
        return domain


def _lengths(bags: Ranges) -> IntArray:
    assert bags.lengths is not None
    return bags.lengths


def _mask(labels: Array, arena: Arena) -> Array:
    """Returns 1 where a label is defined, and sets the others to 0."""
    mask = arena.empty(labels.shape, np.float32)
    undefined = np.isnan(labels)
    np.logical_not(undefined, out=mask)
    labels[undefined] = 0
    return mask


def _lay_out(
    begins: list[IntArray], users: IntArray, arena: Arena
) -> tuple[IntArray, IntArray, IntArray]:
    """Returns values (without content), lengths and value bounds of a block.

    Args:
        begins: for each key [U + 1] where each user's ids begin, and their number.
        users: [T + 1] first user of each batch, and U.
        arena: memory for the results.
    """
    num_batches, num_keys, num_users = len(users) - 1, len(begins), int(users[-1])
    # [keys, T + 1] bounds of each batch in the values of each key
    bounds = np.stack([begin[users] for begin in begins])
    sizes = np.diff(bounds).T
    ends = np.cumsum(sizes).reshape(num_batches, num_keys)
    value_bounds = np.empty((num_batches, num_keys + 1), np.int64)
    value_bounds[:, 1:] = ends
    value_bounds[:, :-1] = ends - sizes
    values = arena.empty((int(value_bounds[-1, -1]),), np.int64)
    lengths_of_key = np.empty((num_keys, num_users), np.int64)
    for row, begin in zip(lengths_of_key, begins, strict=True):
        np.subtract(begin[1:], begin[:-1], out=row)
    lengths = arena.empty((num_keys * num_users,), np.int64)
    for begin, end in zip(users[:-1].tolist(), users[1:].tolist(), strict=True):
        block = lengths[num_keys * begin : num_keys * end].reshape(num_keys, end - begin)
        block[:] = lengths_of_key[:, begin:end]
    return values, lengths, value_bounds
