"""Parts of a data set in memory, and the batches that are cut out of them.

A shard holds the samples of some parts of a split and the event log of the same parts. Rows are
addressed by one index over all its parts, so one gather serves a batch however many streams it
draws from.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ranker_data.columns import Array, Column, IntArray, concatenate, plain
from ranker_data.layout import behaviors_path, samples_path
from ranker_data.reader import DataError, read_behaviors, read_samples
from ranker_data.schema import Schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """Samples and events in memory.

    Attributes:
        samples: sample columns, each of n rows; rows of one user are adjacent.
        behaviors: event columns.
        first_event: [n] row of the first event of the sample's user.
        end_event: [n] row behind the last event that the sample may see.
        part_offsets: first sample row of each of the shard's parts, in the order they were given,
            and n.
    """

    samples: dict[str, Column]
    behaviors: dict[str, Column]
    first_event: IntArray
    end_event: IntArray
    part_offsets: IntArray

    def plain(self, name: str) -> Array:
        """Returns a sample column that holds one value a row."""
        return plain(self.samples[name])


def read_shard(root: Path, schema: Schema, split: str, parts: Sequence[int]) -> Shard:
    """Reads and checks the given parts of a split.

    Raises:
        DataError: a file breaks the contract of the schema, a sample refers to events that are not
        there, or it
            sees an event that is not strictly earlier than itself.
    """
    pieces = [_read_part(root, schema, split, part) for part in parts]
    assert pieces
    event_base = np.cumsum([0] + [len(piece.behaviors["time"]) for piece in pieces])
    sample_base = np.cumsum([0] + [len(piece.first_event) for piece in pieces])
    return Shard(
        samples={k: concatenate([p.samples[k] for p in pieces]) for k in pieces[0].samples},
        behaviors={k: concatenate([p.behaviors[k] for p in pieces]) for k in pieces[0].behaviors},
        first_event=np.concatenate(
            [p.first_event + base for p, base in zip(pieces, event_base[:-1], strict=True)]
        ),
        end_event=np.concatenate(
            [p.end_event + base for p, base in zip(pieces, event_base[:-1], strict=True)]
        ),
        part_offsets=sample_base.astype(np.int64),
    )


def _read_part(root: Path, schema: Schema, split: str, part: int) -> Shard:
    path = samples_path(root, split, part)
    samples = read_samples(path, schema)
    behaviors = read_behaviors(behaviors_path(root, part), schema)
    user, event_user = plain(samples["user"]), plain(behaviors["user"])
    time, event_time = plain(samples["time"]), plain(behaviors["time"])
    history_end = plain(samples["history_end"])
    first = np.searchsorted(event_user, user, side="left")
    available = np.searchsorted(event_user, user, side="right") - first
    bad = (history_end < 0) | (history_end > available)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{path}: row {row}: history_end is {history_end[row]}, but the user has "
            f"{available[row]} events in "
            f"{behaviors_path(root, part)}; samples and behaviors must be prepared together"
        )
    end = first + history_end
    seen = np.flatnonzero(history_end > 0)
    leaks = event_time[end[seen] - 1] >= time[seen]
    if leaks.any():
        row = int(seen[np.argmax(leaks)])
        raise DataError(
            f"{path}: row {row} at time {time[row]} sees an event at time "
            f"{event_time[end[row] - 1]} "
            f"({int(leaks.sum())} such row(s)); a history may only hold strictly earlier events"
        )
    return Shard(
        samples=samples,
        behaviors=behaviors,
        first_event=first,
        end_event=end,
        part_offsets=np.array([0, len(first)]),
    )
