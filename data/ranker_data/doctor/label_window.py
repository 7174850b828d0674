"""Labels whose time to become 1 was cut off by the end of the log.

A purchase that counts for a week is not known of the last week's impressions: their zeros are not
final, and a model that learns or is tested on them sees rates that are too low (Chapelle, "Modeling
delayed feedback in display advertising", KDD 2014).
"""

from collections.abc import Iterator, Mapping

import numpy as np

from ranker_data.columns import IntArray
from ranker_data.doctor.findings import Finding
from ranker_data.schema import Schema
from ranker_data.shard import Shard

_BUCKETS = 32
# the first buckets, whose rates the last one is compared with
_EARLIER = 24
# a bucket with fewer rows has no rate
_ROWS_OF_A_RATE = 200
# standard errors that chance does not reach
_SIGNIFICANT = 6.0


class LabelWindow:
    """Counts labels by time, and those that were cut off.

    Args:
        schema: of the data set.
        first: earliest time of a sample.
        last: latest time of a sample.
        end: last moment of the log, samples and events.
        windows: label -> how long after a sample it may become 1, in the data set's unit of time.
    """

    def __init__(
        self, schema: Schema, *, first: int, last: int, end: int, windows: Mapping[str, int]
    ) -> None:
        self._windows, self._first, self._end = windows, first, end
        self._length = max(last - first, 0) // _BUCKETS + 1
        labels = [label.name for label in schema.labels]
        self._defined = {name: np.zeros(_BUCKETS, np.int64) for name in labels}
        self._positive = {name: np.zeros(_BUCKETS, np.int64) for name in labels}
        # (label, split) -> rows where the label is 0 and may still become 1
        self._open: dict[tuple[str, str], int] = {}

    def add(self, split: str, shard: Shard) -> None:
        """Counts the samples of a part."""
        time = shard.plain("time")
        bucket = np.clip((time - self._first) // self._length, 0, _BUCKETS - 1)
        for name in self._defined:
            values = shard.plain(name)
            self._defined[name] += _count(bucket[~np.isnan(values)])
            self._positive[name] += _count(bucket[values == 1])
            if name in self._windows:
                is_open = (values == 0) & (time > self._end - self._windows[name])
                key = (name, split)
                self._open[key] = self._open.get(key, 0) + int(is_open.sum())

    def findings(self) -> Iterator[Finding]:
        """Judges what was counted."""
        for (name, split), count in self._open.items():
            if count:
                yield Finding(
                    "label_window",
                    f"{split}: label {name!r} of {count:,} rows is 0 and may still become 1: the "
                    f"log ends at {self._end}, less than its window of {self._windows[name]} "
                    "after them; leave these rows out, or give them null",
                )
        for name in self._defined:
            if name not in self._windows:
                yield from self._find_fall(name)

    def _find_fall(self, name: str) -> Iterator[Finding]:
        defined, positive = self._defined[name], self._positive[name]
        rates = positive / np.maximum(defined, 1)
        earlier = np.flatnonzero(defined[:_EARLIER] >= _ROWS_OF_A_RATE)
        if len(earlier) < _EARLIER // 2 or defined[-1] < _ROWS_OF_A_RATE:
            return
        least, last = rates[earlier].min(), rates[-1]
        error = np.sqrt(least * (1 - least) / defined[-1])
        if last < 0.5 * least and least - last > _SIGNIFICANT * error:
            yield Finding(
                "label_window_suspected",
                f"label {name!r} is 1 in {last:.2%} of the last thirty-second of the time, and in "
                f"{least:.2%} or more of every earlier one: was its time to become 1 cut off by "
                f"the end of the log? If it has a fixed window, name it (+label_windows.{name}="
                "<window>), and leave out the rows whose outcome is not known, or give them null",
            )


def _count(bucket: IntArray) -> IntArray:
    return np.bincount(bucket, minlength=_BUCKETS)
