"""Where the packed arrays of a split are: in memory, a few parts at a time, or in the cache."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ranker_data.columns import Array, IntArray
from ranker_data.layout import behaviors_path, samples_path
from ranker_data.packed import (
    ROWS,
    Arrays,
    ArraySpec,
    bases_of,
    event_specs,
    pack_events,
    pack_samples,
    sample_specs,
    size_of,
)
from ranker_data.reader import DataError, PartSize
from ranker_data.schema import Schema
from ranker_data.shard import read_shard


class PackedStore(Protocol):
    """Packed arrays of a split.

    A sample is known by its number in the split, over all parts in file order.
    """

    @property
    def arrays(self) -> Arrays:
        """Packed arrays, see `packed.py`; they hold the parts that were required last."""

    def check(self, groups: Collection[tuple[int, ...]]) -> None:
        """Checks the parts of some generations."""

    def require(self, groups: Collection[tuple[int, ...]]) -> None:
        """Makes the parts of some generations available."""

    def moved_ids(self) -> Counter[str]:
        """Returns how many ids of the checked parts were moved into range, by field."""

    def locate(self, samples: IntArray) -> IntArray:
        """Returns where some samples of required parts are in `arrays["samples"]`."""

    def users(self, part: int) -> Array:
        """Returns the user of each sample of a required part."""


class MemoryStore:
    """Reads whole generations from Parquet into memory.

    There is room for as many generations as a batch touches, usually two. What is not needed makes
    place for what is.

    Args:
        root: the prepared data set.
        schema: of the data set.
        split: "train", "valid" or "test".
        samples: sizes of the split's parts.
        events: sizes of the event log's parts.
        streams: parts of each stream that is read; a generation has at most one part of each.
    """

    def __init__(
        self,
        *,
        root: Path,
        schema: Schema,
        split: str,
        samples: list[PartSize],
        events: list[PartSize],
        streams: Sequence[Sequence[int]],
    ) -> None:
        self._root, self._schema, self._split = root, schema, split
        self._sizes = {"samples": samples, "events": events}
        self._specs = {"samples": sample_specs(schema), "events": event_specs(schema)}
        self._streams = streams
        self._first_sample = bases_of(samples, ROWS)
        self.arrays: Arrays = {}
        # parts in each of the rooms that the arrays are divided into
        self._rooms: list[tuple[int, ...] | None] = []
        self._place: dict[int, int] = {}
        self._moved: dict[int, Counter[str]] = {}
        self._allocate(min(2, max((len(parts) for parts in streams), default=1)))

    def check(self, groups: Collection[tuple[int, ...]]) -> None:
        """Reads and checks the parts that are not here yet."""
        self.require(groups)

    def moved_ids(self) -> Counter[str]:
        """Returns how many ids of the parts read so far were moved into range, by field."""
        total: Counter[str] = Counter()
        for counts in self._moved.values():
            total.update(counts)
        return total

    def require(self, groups: Collection[tuple[int, ...]]) -> None:
        """Reads and checks the parts that are not here yet."""
        wanted = set(groups)
        if len(wanted) > len(self._rooms):
            self._allocate(len(wanted))
        free = [i for i, parts in enumerate(self._rooms) if parts not in wanted]
        for parts in sorted(wanted - set(self._rooms)):
            self._load(free.pop(0), parts)

    def locate(self, samples: IntArray) -> IntArray:
        """Returns where some samples of required parts are in `arrays["samples"]`."""
        parts = np.array(sorted(self._place), np.int64)
        place = np.array([self._place[part] for part in parts], np.int64)
        shift = place - self._first_sample[parts]
        owner = np.searchsorted(self._first_sample[parts], samples, side="right") - 1
        return samples + shift[owner]

    def users(self, part: int) -> Array:
        """Returns the user of each sample of a required part."""
        begin = self._place[part]
        return self.arrays["samples"]["user"][begin : begin + self._sizes["samples"][part].num_rows]

    def _capacity(self, relation: str, spec: ArraySpec) -> int:
        sizes = self._sizes[relation]
        return sum(
            max((size_of(sizes[part], spec.axis) for part in parts), default=0)
            for parts in self._streams
        )

    def _allocate(self, num_rooms: int) -> None:
        # what is there stays where it is
        self._rooms += [None] * (num_rooms - len(self._rooms))
        for relation, specs in self._specs.items():
            for name, spec in specs.items():
                # memory is taken only when it is written to
                array = np.empty(num_rooms * self._capacity(relation, spec), spec.dtype)
                if name in self.arrays:
                    array[: len(self.arrays[name])] = self.arrays[name]
                self.arrays[name] = array

    def _load(self, room: int, parts: tuple[int, ...]) -> None:
        for part in self._rooms[room] or ():
            del self._place[part]
        self._rooms[room] = None
        next_free = {
            relation: {spec.axis: room * self._capacity(relation, spec) for spec in specs.values()}
            for relation, specs in self._specs.items()
        }
        for part in parts:
            shard = read_shard(self._root, self._schema, self._split, part)
            sizes = {relation: sizes[part] for relation, sizes in self._sizes.items()}
            path = samples_path(self._root, self._split, part)
            check_size(path, sizes["samples"], len(shard.first_event))
            events_path = behaviors_path(self._root, part)
            check_size(events_path, sizes["events"], len(shard.behaviors["time"]))
            events, samples = next_free["events"], next_free["samples"]
            pack_events(self._schema, shard, self._share("events", events, sizes), events)
            share = self._share("samples", samples, sizes)
            pack_samples(self._schema, shard, share, samples, events[ROWS])
            self._place[part] = samples[ROWS]
            self._moved[part] = Counter(shard.moved) + Counter(shard.moved_events)
            for relation, begins in next_free.items():
                for axis in begins:
                    begins[axis] += size_of(sizes[relation], axis)
        self._rooms[room] = parts

    def _share(
        self, relation: str, begins: Mapping[str, int], sizes: Mapping[str, PartSize]
    ) -> Arrays:
        """Returns a part's share of the arrays of a relation; it starts at `begins`, by axis."""
        return {
            name: self.arrays[name][
                begins[spec.axis] : begins[spec.axis] + size_of(sizes[relation], spec.axis)
            ]
            for name, spec in self._specs[relation].items()
        }


def check_size(path: Path, size: PartSize, num_rows: int) -> None:
    """Refuses a part that was replaced after its footer had been read.

    Raises:
        DataError: the number of rows is another.
    """
    if num_rows != size.num_rows:
        raise DataError(
            f"{path} had {size.num_rows} rows when this process started, and has {num_rows} now; "
            "data must not change under a run, start again"
        )
