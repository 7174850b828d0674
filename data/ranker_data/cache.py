"""The packed arrays of a split on disk, made once from the Parquet files and mapped into memory.

    <cache_dir>/<data set>-<hash of its path>/
        behaviors-<schema>-<files>/    see `cache_folder.py`
        train-<schema>-<files>/        likewise; also valid, test

Parts are packed one at a time under a lock each: ranks share the work, and a part whose packing was
cut short is packed again. So is one whose checksum does not fit, which is looked at before a
process reads the part for the first time.
"""

import logging
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ranker_data.cache_folder import CacheError as CacheError
from ranker_data.cache_folder import CacheFolder, digest
from ranker_data.columns import Array, IntArray
from ranker_data.layout import behaviors_path, samples_path
from ranker_data.packed import (
    ROWS,
    Arrays,
    event_specs,
    pack_events,
    pack_samples,
    sample_specs,
)
from ranker_data.reader import PartSize
from ranker_data.schema import Schema
from ranker_data.shard import read_shard
from ranker_data.store import check_size

_log = logging.getLogger(__name__)


class CachedStore:
    """A split whose packed arrays are files.

    Can be sent to another process, which maps the same pages.

    Args:
        root: the prepared data set.
        schema: of the data set.
        split: "train", "valid" or "test".
        samples: sizes of the split's parts.
        events: sizes of the event log's parts.
        cache_dir: folder for the caches of any number of data sets; best on a local disk.

    Raises:
        CacheError: the folder cannot be written, or the disk is too full.
    """

    def __init__(
        self,
        *,
        root: Path,
        schema: Schema,
        split: str,
        samples: list[PartSize],
        events: list[PartSize],
        cache_dir: Path,
    ) -> None:
        self._root, self._schema, self._split = root, schema, split
        home = cache_dir / f"{root.name}-{digest(str(root.resolve()))[:8]}"
        parts = range(len(events))
        self._events = CacheFolder(
            home,
            "behaviors",
            schema,
            event_specs(schema),
            events,
            [behaviors_path(root, p) for p in parts],
        )
        # samples point at events, so they belong to these very events
        self._samples = CacheFolder(
            home,
            split,
            schema,
            sample_specs(schema),
            samples,
            [samples_path(root, split, p) for p in parts],
            also=self._events.folder.name,
        )
        for relation in (self._events, self._samples):
            relation.create()
        self._packed: set[int] = set()
        self._verified: set[int] = set()
        self._arrays: Arrays = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}}

    @property
    def arrays(self) -> Arrays:
        """Packed arrays of all parts; only those of required parts have content."""
        if not self._arrays:
            self._arrays = self._events.map() | self._samples.map()
        return self._arrays

    def check(self, groups: Collection[tuple[int, ...]]) -> None:
        """Packs the parts that nobody has packed yet, which checks them."""
        for parts in groups:
            for part in parts:
                if part not in self._packed:
                    self._pack(part)
                    self._packed.add(part)

    def require(self, groups: Collection[tuple[int, ...]]) -> None:
        """Packs parts, and verifies those that this process has not read before.

        Raises:
            CacheError: a part does not stay as it was written.
        """
        self.check(groups)
        for parts in groups:
            for part in parts:
                if part not in self._verified:
                    self._verify(part)
                    self._verified.add(part)

    def moved_ids(self) -> Counter[str]:
        """Returns how many ids of the packed parts were moved into range, by field."""
        total: Counter[str] = Counter()
        for part in self._packed:
            total.update(self._events.moved(part))
            total.update(self._samples.moved(part))
        return total

    def locate(self, samples: IntArray) -> IntArray:
        """Returns where some samples are in `arrays["samples"]`: at their number."""
        return samples

    def users(self, part: int) -> Array:
        """Returns the user of each sample of a part."""
        begin, end = self._samples.bases[ROWS][part : part + 2]
        return self.arrays["samples"]["user"][begin:end]

    def _pack(self, part: int) -> None:
        samples, events = self._samples, self._events
        if samples.is_done(part) and events.is_done(part):
            return
        with samples.locked(part), events.locked(part):
            new_events = not events.is_done(part)
            if samples.is_done(part) and not new_events:
                return
            shard = read_shard(self._root, self._schema, self._split, part, event_fields=new_events)
            path = samples_path(self._root, self._split, part)
            check_size(path, samples.sizes[part], len(shard.first_event))
            events_path = behaviors_path(self._root, part)
            check_size(events_path, events.sizes[part], len(shard.behaviors["time"]))
            base = events.base(part)
            if new_events:
                events.write(
                    part,
                    lambda out: pack_events(self._schema, shard, out, base),
                    shard.moved_events,
                )
            samples.write(
                part,
                lambda out: pack_samples(self._schema, shard, out, samples.base(part), base[ROWS]),
                shard.moved,
            )

    def _verify(self, part: int) -> None:
        folders = (self._samples, self._events)
        damaged = {folder: names for folder in folders if (names := folder.damage(part))}
        for folder, names in damaged.items():
            _log.warning(
                "loader.cache_dir: part %d of %s is damaged (%s); it is packed again from Parquet",
                part,
                folder.folder,
                ", ".join(names),
            )
            with folder.locked(part):
                # another process may have packed it by now
                if folder.damage(part):
                    folder.forget(part)
        if damaged:
            self._pack(part)
        for folder in damaged:
            if folder.damage(part):
                raise CacheError(
                    f"loader.cache_dir: part {part} of {folder.folder} was packed again and is "
                    "damaged again; examine the disk, choose a folder on another one, or null to "
                    "read into memory"
                )
