"""One part of a data set in memory: its samples, its events, and who may see what; checked."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ranker_data.columns import Array, Column, IntArray, plain
from ranker_data.layout import behaviors_path, samples_path
from ranker_data.reader import DataError, read_behaviors, read_event_keys, read_samples
from ranker_data.schema import Schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """Samples and events of a part.

    Attributes:
        samples: sample columns, each of n rows; rows of one user are adjacent.
        behaviors: event columns.
        first_event: [n] row of the first event of the sample's user.
        end_event: [n] row behind the last event that the sample may see.
        moved: sample field -> ids that were outside their table and were given another one.
        moved_events: behaviour field -> likewise.
    """

    samples: dict[str, Column]
    behaviors: dict[str, Column]
    first_event: IntArray
    end_event: IntArray
    moved: Mapping[str, int]
    moved_events: Mapping[str, int]

    def plain(self, name: str) -> Array:
        """Returns a sample column that holds one value a row."""
        return plain(self.samples[name])


def read_shard(
    root: Path, schema: Schema, split: str, part: int, *, event_fields: bool = True
) -> Shard:
    """Reads and checks a part of a split.

    Args:
        root: the prepared data set.
        schema: of the data set.
        split: "train", "valid" or "test".
        part: number of the part.
        event_fields: read the events' fields too, not only their users and times.

    Raises:
        DataError: a file breaks the contract of the schema, a sample refers to events that are not
            there, sees an event that is not strictly earlier than itself, or sees less than an
            earlier sample of its user.
    """
    path, events_path = samples_path(root, split, part), behaviors_path(root, part)
    moved: Counter[str] = Counter()
    moved_events: Counter[str] = Counter()
    samples = read_samples(path, schema, moved)
    behaviors = (
        read_behaviors(events_path, schema, moved_events)
        if event_fields
        else read_event_keys(events_path, schema)
    )
    first, end = _find_histories(samples, behaviors, path, events_path)
    return Shard(
        samples=samples,
        behaviors=behaviors,
        first_event=first,
        end_event=end,
        moved=moved,
        moved_events=moved_events,
    )


def _find_histories(
    samples: dict[str, Column], behaviors: dict[str, Column], path: Path, events_path: Path
) -> tuple[IntArray, IntArray]:
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
            f"{available[row]} events in {events_path}; samples and behaviors must be prepared "
            "together"
        )
    end = first + history_end
    seen = np.flatnonzero(history_end > 0)
    leaks = event_time[end[seen] - 1] >= time[seen]
    if leaks.any():
        row = int(seen[np.argmax(leaks)])
        raise DataError(
            f"{path}: row {row} at time {time[row]} sees an event at time "
            f"{event_time[end[row] - 1]} ({int(leaks.sum())} such row(s)); a history may only hold "
            "strictly earlier events"
        )
    falls = (user[1:] == user[:-1]) & (end[1:] < end[:-1])
    if falls.any():
        row = int(np.argmax(falls)) + 1
        raise DataError(
            f"{path}: row {row}: history_end is {history_end[row]}, but {history_end[row - 1]} for "
            "the user's sample before it; an event that was seen stays seen"
        )
    return first, end
