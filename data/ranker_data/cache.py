"""The packed arrays of a split on disk, made once from the Parquet files and mapped into memory.

    <cache_dir>/<data set>-<hash of its path>/
        behaviors-<schema>-<files>/    one file per packed array, over all parts
        train-<schema>-<files>/        likewise; also valid, test
            part-00000.done            the part's share of every file is complete

The name of a folder holds a hash of the schema and one of the Parquet files' names, sizes and
times. Files that change give another folder, and folders of what was there before are removed when
nobody uses them. All space is claimed when a folder is made, so that a full disk is noticed then.
Parts are packed one at a time under a lock each: ranks share the work, and a part whose packing was
cut short is packed again.
"""

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
from ranker_data.store import check_size

FORMAT_VERSION = 1


class CacheError(DataError):
    """The cache cannot be made; the message says what to do."""


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
        home = cache_dir / f"{root.name}-{_digest(str(root.resolve()))[:8]}"
        parts = range(len(events))
        self._events = _Relation(
            home,
            "behaviors",
            schema,
            event_specs(schema),
            events,
            [behaviors_path(root, p) for p in parts],
        )
        # samples point at events, so they belong to these very events
        self._samples = _Relation(
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
        self._ready: set[int] = set()
        self._arrays: Arrays = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}}

    @property
    def arrays(self) -> Arrays:
        """Packed arrays of all parts; only those of required parts have content."""
        if not self._arrays:
            self._arrays = self._events.map() | self._samples.map()
        return self._arrays

    def require(self, groups: Collection[tuple[int, ...]]) -> None:
        """Packs the parts that nobody has packed yet."""
        for parts in groups:
            for part in parts:
                if part not in self._ready:
                    self._pack(part)
                    self._ready.add(part)

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
            if new_events:
                with events.share(part) as out:
                    pack_events(self._schema, shard, out, events.base(part))
            with samples.share(part) as out:
                event_base = events.base(part)[ROWS]
                pack_samples(self._schema, shard, out, samples.base(part), event_base)


class _Relation:
    """The folder with the packed arrays of one relation."""

    def __init__(
        self,
        home: Path,
        name: str,
        schema: Schema,
        specs: Mapping[str, ArraySpec],
        sizes: list[PartSize],
        files: list[Path],
        also: str = "",
    ) -> None:
        self.specs, self.sizes = specs, sizes
        self.bases = {spec.axis: bases_of(sizes, spec.axis) for spec in specs.values()}
        # the schema also says what becomes of ids that a table does not have
        kind = _digest(FORMAT_VERSION, dataclasses.asdict(schema))
        stats = [(path.name, path.stat()) for path in files]
        state = _digest([[name, s.st_size, s.st_mtime_ns] for name, s in stats], also)
        self._kind = f"{name}-{kind[:8]}"
        self.folder = home / f"{self._kind}-{state[:16]}"

    def __getstate__(self) -> dict[str, Any]:
        # the process that sends the store on holds the lock
        return {name: value for name, value in self.__dict__.items() if name != "_in_use"}

    def create(self) -> None:
        """Makes the folder with files of their full size, if it is not there."""
        home = self.folder.parent
        try:
            home.mkdir(parents=True, exist_ok=True)
            with _lock(home / ".lock"):
                if not self.folder.is_dir():
                    self._remove_stale()
                    self._create()
                # held as long as this process lives: says that the folder is in use
                self._in_use = _LockFile(self.folder / ".in-use", fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise CacheError(
                f"loader.cache_dir: {error.filename} cannot be written; choose another folder, or "
                "null to read into memory"
            ) from error

    def _create(self) -> None:
        temporary = self.folder.with_name(f".tmp-{self.folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, spec in self.specs.items():
            size = self._length(spec) * spec.dtype.itemsize
            with (temporary / quote(name, safe="")).open("wb") as file:
                if size:
                    self._claim(file.fileno(), size, temporary)
        (temporary / ".in-use").touch()
        temporary.rename(self.folder)

    def _claim(self, file: int, size: int, temporary: Path) -> None:
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
            shutil.rmtree(temporary)
            needed = sum(self._length(s) * s.dtype.itemsize for s in self.specs.values())
            free = shutil.disk_usage(temporary.parent).free
            raise CacheError(
                f"loader.cache_dir: {self.folder} needs {needed / 1e9:.2f} GB, but only "
                f"{free / 1e9:.2f} GB are free there; choose a folder on another disk, or null to "
                "read into memory"
            ) from error

    def _remove_stale(self) -> None:
        for folder in self.folder.parent.glob(f"{self._kind}-*"):
            try:
                lock = _LockFile(folder / ".in-use", fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(folder)
            lock.close()

    def _length(self, spec: ArraySpec) -> int:
        return int(self.bases[spec.axis][-1])

    def map(self) -> Arrays:
        """Maps all arrays read-only."""
        return {
            name: self._map(name, "r", 0, self._length(spec)).view(np.ndarray)
            for name, spec in self.specs.items()
        }

    def _map(self, name: str, mode: Any, begin: int, end: int) -> Array:
        dtype = self.specs[name].dtype
        if begin == end:
            return np.empty(0, dtype)
        path = self.folder / quote(name, safe="")
        return np.memmap(path, dtype, mode, begin * dtype.itemsize, (end - begin,))

    def is_done(self, part: int) -> bool:
        """Whether a part was packed."""
        return self._marker(part).exists()

    def _marker(self, part: int) -> Path:
        return self.folder / f"part-{part:05d}.done"

    @contextmanager
    def locked(self, part: int) -> Iterator[None]:
        """Keeps other processes from packing a part at the same time."""
        with _lock(self.folder / f"part-{part:05d}.lock"):
            yield

    def base(self, part: int) -> dict[str, int]:
        """Returns where a part's share begins, by axis."""
        return {axis: int(base[part]) for axis, base in self.bases.items()}

    @contextmanager
    def share(self, part: int) -> Iterator[Arrays]:
        """Gives a part's share of the arrays for writing, and marks it as done at the end."""
        begin = self.base(part)
        arrays = {
            name: self._map(
                name, "r+", begin[s.axis], begin[s.axis] + size_of(self.sizes[part], s.axis)
            )
            for name, s in self.specs.items()
        }
        yield arrays
        for array in arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
        self._marker(part).touch()


class _LockFile:
    """An open file with a lock; both go when the process ends."""

    def __init__(self, path: Path, operation: int) -> None:
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, operation)
        except BlockingIOError:
            self.close()
            raise

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = _LockFile(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        lock.close()


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
