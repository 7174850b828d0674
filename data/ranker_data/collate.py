"""Cuts a batch out of a shard.

Sorts the rows by user, stores each user's behaviours once, builds the jagged tensor.
"""

import numpy as np
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from ranker_data.batch import BEHAVIOR_PREFIX, RankingBatch
from ranker_data.columns import Array, Column, IntArray, Ragged, expand_ranges, plain, take
from ranker_data.layout import truth_columns
from ranker_data.schema import Field, Schema
from ranker_data.shard import Shard


class Collator:
    """Builds `RankingBatch`es of one schema.

    Args:
        schema: of the data set.
        max_length: a sample sees at most this many of its latest behaviours.
    """

    def __init__(self, schema: Schema, *, max_length: int) -> None:
        self.schema = schema
        self.max_length = max_length
        self.user_fields = schema.fields_of("user")
        self.candidate_fields = schema.candidate_fields
        self.label_names = [label.name for label in schema.labels]
        self.truth_names = truth_columns(schema)

    def __call__(self, shard: Shard, rows: IntArray, padding: int = 0) -> RankingBatch:
        """Builds the batch of the given rows.

        The last `padding` of them get weight 0 and sample id -1.
        """
        assert len(rows) > 0
        user = shard.plain("user")
        weight = shard.plain("weight")[rows].copy()
        sample_id = shard.plain("sample_id")[rows].copy()
        if padding:
            weight[-padding:] = 0.0
            sample_id[-padding:] = -1
        order = np.argsort(user[rows], kind="stable")
        rows, weight, sample_id = rows[order], weight[order], sample_id[order]
        keys = user[rows]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        counts = np.diff(starts, append=len(rows))

        windows, behavior_rows, behavior_counts = self._windows(shard, rows, starts)
        ids = _IdColumns()
        first_rows = rows[starts]
        for field in self.user_fields:
            ids.add(field.name, field, shard.samples, first_rows, np.ones_like(counts))
        for field in self.schema.behaviors:
            key = BEHAVIOR_PREFIX + field.name
            ids.add(key, field, shard.behaviors, behavior_rows, behavior_counts)
        for field in self.candidate_fields:
            ids.add(field.name, field, shard.samples, rows, counts)

        labels = _stack(shard.samples, self.label_names, rows)
        mask = ~np.isnan(labels)
        domain = (
            shard.plain(self.schema.domain)[rows]
            if self.schema.domain
            else np.zeros(len(rows), np.int64)
        )
        return RankingBatch(
            ids=ids.build(),
            bag_lengths=ids.bag_lengths,
            user_dense=_dense(shard.samples, self.user_fields, first_rows),
            behavior_dense=_dense(shard.behaviors, self.schema.behaviors, behavior_rows),
            candidate_dense=_dense(shard.samples, self.candidate_fields, rows),
            user_of=torch.from_numpy(np.repeat(np.arange(len(starts)), counts)),
            windows=torch.from_numpy(windows),
            behavior_time=_tensor(shard.behaviors["time"], behavior_rows),
            time=_tensor(shard.samples["time"], rows),
            labels=torch.from_numpy(np.where(mask, labels, np.float32(0))),
            label_mask=torch.from_numpy(mask.astype(np.float32)),
            weights=torch.from_numpy(weight),
            truths=torch.from_numpy(_stack(shard.samples, self.truth_names, rows, np.float64)),
            sample_id=torch.from_numpy(sample_id),
            user=torch.from_numpy(keys),
            request=_tensor(shard.samples["request"], rows),
            domain=torch.from_numpy(domain),
        )

    def _windows(
        self, shard: Shard, rows: IntArray, starts: IntArray
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Returns windows [C, 2] on the batch's axis, its event rows [N], events per user [U].

        A user's windows are merged into disjoint stretches of the event log, so an event that
        several candidates see is there once, and one that none sees is not there.
        """
        end = shard.end_event[rows]
        begin = np.maximum(shard.first_event[rows], end - self.max_length)
        user = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(rows)))
        order = np.lexsort((begin, user))
        low, high, owner = begin[order], end[order], user[order]
        # user after user on one axis, so that one running maximum serves all of them
        lift = owner * (int(end.max()) + 1)
        reach = np.maximum.accumulate(high + lift)
        opens = np.concatenate([[True], low[1:] + lift[1:] > reach[:-1]])
        stretch = np.cumsum(opens) - 1
        first = low[opens]
        lengths = (reach - lift)[np.flatnonzero(np.append(opens[1:], True))] - first
        base = np.cumsum(lengths) - lengths
        shift = np.empty_like(begin)
        shift[order] = (base - first)[stretch]
        windows = np.stack([begin + shift, end + shift], axis=1)
        per_user = np.bincount(owner[opens], weights=lengths, minlength=len(starts))
        return windows, expand_ranges(first, lengths), per_user.astype(np.int64)


class _IdColumns:
    """Collects the id columns of a batch and concatenates them into one jagged tensor."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.values: list[Array] = []
        self.lengths: list[IntArray] = []
        self.bag_lengths: dict[str, Tensor] = {}

    def add(
        self,
        key: str,
        field: Field,
        columns: dict[str, Column],
        rows: IntArray,
        counts: IntArray,
    ) -> None:
        """Adds the given rows of a field; `counts` [U] says how many of them each user has."""
        if field.kind == "dense":
            return
        column = take(columns[field.name], rows)
        self.keys.append(key)
        if isinstance(column, Ragged):
            bags = column.lengths
            self.bag_lengths[key] = torch.from_numpy(bags)
            ends = np.concatenate([[0], np.cumsum(counts)])
            self.lengths.append(np.diff(column.offsets[ends]))
            self.values.append(column.values)
        else:
            self.lengths.append(counts)
            self.values.append(column)

    def build(self) -> KeyedJaggedTensor:
        return KeyedJaggedTensor(
            keys=self.keys,
            values=torch.from_numpy(np.concatenate(self.values)),
            lengths=torch.from_numpy(np.concatenate(self.lengths)),
        )


def _tensor(column: Column, rows: IntArray) -> Tensor:
    return torch.from_numpy(plain(column)[rows])


def _stack(
    columns: dict[str, Column],
    names: list[str] | tuple[str, ...],
    rows: IntArray,
    dtype: type = np.float32,
) -> Array:
    result: Array = np.empty((len(rows), len(names)), dtype)
    for i, name in enumerate(names):
        result[:, i] = plain(columns[name])[rows]
    return result


def _dense(columns: dict[str, Column], fields: tuple[Field, ...], rows: IntArray) -> Tensor:
    names = [field.name for field in fields if field.kind == "dense"]
    return torch.from_numpy(_stack(columns, names, rows))
