"""`stats.json`: what a prepared data set holds, and the checks that it passed.

Everything is measured on the written files, through the same reader that training uses, part by
part.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker_data.columns import Array, plain
from ranker_data.layout import SPLITS, STATS_FILE, samples_path
from ranker_data.reader import DataError
from ranker_data.schema import Schema
from ranker_data.shard import Shard, read_shard

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_OUTPUT_CHECKS = (
    "files: readable, checksums right, columns and types as in the schema",
    "rows: sorted by user and time; no user in two parts",
    "values: ids in the range of their table; dense values finite; labels 0, 1 or null, and 1 only "
    "where the labels that they require are",
    "history_end: counts all events of the user that are strictly earlier, and no other",
    "splits: every split that was asked for has rows",
)
_TIME_CHECK = (
    "splits: every training sample is earlier than every validation sample, and these than every "
    "test sample"
)


def write_stats(
    root: Path,
    schema: Schema,
    *,
    digest: str,
    num_parts: int,
    checks: Sequence[str],
    wanted_splits: Sequence[str],
    split_in_time: bool,
    raw: Mapping[str, int] | None = None,
) -> None:
    """Checks the written files and describes them in `stats.json`.

    Args:
        root: the data set.
        schema: of the data set.
        digest: fingerprint of the preparation.
        num_parts: number of parts.
        checks: checks of the input that were passed.
        wanted_splits: splits that must have rows.
        split_in_time: whether one moment separates the splits for all users.
        raw: row counts of the input, if there was one.

    Raises:
        DataError: a check fails.
    """
    census = _Census(schema)
    for part in range(num_parts):
        census.add_part(root, part)
    passed = [*checks, *_OUTPUT_CHECKS]
    for split in wanted_splits:
        if census.splits[split].num_rows == 0:
            raise DataError(
                f"the {split} split has no rows; there are too few samples or too few different "
                "times for the shares that the split asks for"
            )
    if split_in_time:
        _check_splits_in_time(census.splits)
        passed.append(_TIME_CHECK)
    stats = {
        "name": schema.name,
        "preparation": digest,
        "num_parts": num_parts,
        **census.as_dict(),
        "tables": {table.name: table.num_embeddings for table in schema.tables},
        "raw": dict(raw or {}),
        "checks_passed": passed,
    }
    text = json.dumps(stats, indent=2, ensure_ascii=False)
    (root / STATS_FILE).write_text(text + "\n", encoding="utf-8")


def check_history_complete(shard: Shard, path: Path) -> None:
    """The reader refuses events that are not earlier; here, that no earlier event was left out."""
    event_user, event_time = plain(shard.behaviors["user"]), plain(shard.behaviors["time"])
    rows = np.flatnonzero(shard.end_event < len(event_user))
    following = shard.end_event[rows]
    left_out = (event_user[following] == shard.plain("user")[rows]) & (
        event_time[following] < shard.plain("time")[rows]
    )
    if left_out.any():
        row = int(rows[np.argmax(left_out)])
        raise DataError(
            f"{path}: row {row}: history_end leaves out an event that is earlier than the sample"
        )


def _check_splits_in_time(tallies: Mapping[str, "_Tally"]) -> None:
    previous, last = "", None
    for split, tally in tallies.items():
        if tally.times.first is None:
            continue
        if last is not None and last >= tally.times.first:
            raise DataError(
                f"the last {previous} sample (time {last}) is not earlier than the first {split} "
                f"sample (time {tally.times.first})"
            )
        previous, last = split, tally.times.last


@dataclasses.dataclass
class _Range:
    first: int | None = None
    last: int | None = None

    def add(self, values: Array) -> None:
        if len(values):
            low, high = int(values.min()), int(values.max())
            self.first = low if self.first is None else min(self.first, low)
            self.last = high if self.last is None else max(self.last, high)

    def as_dict(self) -> dict[str, int | None]:
        return {"first": self.first, "last": self.last}


class _Counts:
    """Exact quantiles of small non-negative integers from their histogram."""

    def __init__(self) -> None:
        self._histogram = np.zeros(1, np.int64)

    def add(self, values: Array) -> None:
        found = np.bincount(values, minlength=len(self._histogram))
        found[: len(self._histogram)] += self._histogram
        self._histogram = found

    def quantiles(self) -> dict[str, int]:
        cumulated = np.cumsum(self._histogram)
        if cumulated[-1] == 0:
            return {}
        ranks = [int(np.ceil(q * cumulated[-1])) for q in _QUANTILES.values()]
        values = np.searchsorted(cumulated, ranks)
        return {name: int(v) for name, v in zip(_QUANTILES, values, strict=True)}


class _Tally:
    """Counts of one split."""

    def __init__(self, schema: Schema) -> None:
        self.num_rows = 0
        self.times = _Range()
        self._num_users = 0
        self._num_requests = 0
        self._lengths = _Counts()
        self._defined = {label.name: 0 for label in schema.labels}
        self._positive = {label.name: 0 for label in schema.labels}

    def add(self, shard: Shard) -> None:
        self.num_rows += len(shard.first_event)
        self.times.add(shard.plain("time"))
        self._num_users += len(np.unique(shard.plain("user")))
        self._num_requests += len(np.unique(shard.plain("request")))
        self._lengths.add(shard.plain("history_end"))
        for name in self._defined:
            values = shard.plain(name)
            self._defined[name] += int((~np.isnan(values)).sum())
            self._positive[name] += int((values == 1).sum())

    def as_dict(self) -> dict[str, Any]:
        labels = {
            name: {
                "defined": defined,
                "positive": self._positive[name],
                "rate": round(self._positive[name] / defined, 6) if defined else None,
            }
            for name, defined in self._defined.items()
        }
        return {
            "num_rows": self.num_rows,
            "num_users": self._num_users,
            "num_requests": self._num_requests,
            "time": self.times.as_dict(),
            "history_length": self._lengths.quantiles(),
            "labels": labels,
        }


class _Census:
    """Counts of a whole data set."""

    def __init__(self, schema: Schema) -> None:
        self.splits = {split: _Tally(schema) for split in SPLITS}
        self._schema = schema
        self._num_events = 0
        self._event_times = _Range()
        self._events_per_user = _Counts()
        self._users: list[NDArray[np.int64]] = []
        self._part_rows: list[int] = []

    def add_part(self, root: Path, part: int) -> None:
        """Reads and checks a part."""
        users = []
        self._part_rows.append(0)
        for split, tally in self.splits.items():
            shard = read_shard(root, self._schema, split, part)
            check_history_complete(shard, samples_path(root, split, part))
            tally.add(shard)
            users.append(shard.plain("user"))
            self._part_rows[-1] += len(shard.first_event)
        event_user = plain(shard.behaviors["user"])
        self._num_events += len(event_user)
        self._event_times.add(plain(shard.behaviors["time"]))
        self._events_per_user.add(np.unique(event_user, return_counts=True)[1])
        self._users.append(np.unique(np.concatenate([*users, event_user])))

    def as_dict(self) -> dict[str, Any]:
        users, num_parts = np.unique(np.concatenate(self._users), return_counts=True)
        assert (num_parts == 1).all(), "a user is in two parts"
        return {
            "num_users": len(users),
            "samples_per_part": {"min": min(self._part_rows), "max": max(self._part_rows)},
            "behaviors": {
                "num_rows": self._num_events,
                "time": self._event_times.as_dict(),
                "events_per_user": self._events_per_user.quantiles(),
            },
            "samples": {split: tally.as_dict() for split, tally in self.splits.items()},
        }
