"""A folder of the cache: the packed arrays of one relation, and which parts of them are complete.

    <cache_dir>/<data set>-<hash of its path>/<relation>-<schema>-<files>/
        <array>            one file per packed array, over all parts
        part-00000.done    the part's share of every file is complete: checksums, and what was moved

The name holds a hash of the schema and one of the Parquet files' names, sizes and times. Files that
change give another folder, and folders of what was there before are removed when nobody uses them.
All space is claimed when a folder is made, so that a full disk is noticed then.
"""

import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ranker_data.columns import Array
from ranker_data.packed import Arrays, ArraySpec, bases_of, size_of
from ranker_data.reader import DataError, PartSize
from ranker_data.schema import Schema

FORMAT_VERSION = 2
# words that are summed beside each other
_LANES = 1024

_log = logging.getLogger(__name__)


class CacheError(DataError):
    """The cache cannot be made; the message says what to do."""


class CacheFolder:
    """The packed arrays of one relation.

    Args:
        home: folder of the data set.
        name: of the relation.
        schema: of the data set.
        specs: the arrays.
        sizes: of the parts.
        files: Parquet files of the parts.
        also: what the content depends on besides.
    """

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
        kind = digest(FORMAT_VERSION, dataclasses.asdict(schema))
        stats = [(path.name, path.stat()) for path in files]
        state = digest([[name, s.st_size, s.st_mtime_ns] for name, s in stats], also)
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
                self._mend_sizes()
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
            with self._file(name, temporary).open("wb") as file:
                if size:
                    self._claim(file.fileno(), size, temporary)
        (temporary / ".in-use").touch()
        temporary.rename(self.folder)

    def _mend_sizes(self) -> None:
        for name, spec in self.specs.items():
            path, size = self._file(name), self._length(spec) * spec.dtype.itemsize
            found = path.stat().st_size if path.exists() else 0
            if found == size:
                continue
            _log.warning(
                "loader.cache_dir: %s has %d bytes, must have %d; all parts are packed again from "
                "Parquet",
                path,
                found,
                size,
            )
            for part in range(len(self.sizes)):
                self.forget(part)
            with path.open("wb") as file:
                self._claim(file.fileno(), size, self.folder)

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
        return np.memmap(self._file(name), dtype, mode, begin * dtype.itemsize, (end - begin,))

    def _file(self, name: str, folder: Path | None = None) -> Path:
        return (folder or self.folder) / quote(name, safe="")

    def is_done(self, part: int) -> bool:
        """Whether a part was packed."""
        return self._read_marker(part) is not None

    def _marker(self, part: int) -> Path:
        return self.folder / f"part-{part:05d}.done"

    def _read_marker(self, part: int) -> dict[str, dict[str, Any]] | None:
        """Returns what is noted of a complete part; None if it is none, or cannot be read."""
        try:
            found = json.loads(self._marker(part).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) and found.keys() == {"checksums", "moved"} else None

    @contextmanager
    def locked(self, part: int) -> Iterator[None]:
        """Keeps other processes from packing a part at the same time."""
        with _lock(self.folder / f"part-{part:05d}.lock"):
            yield

    def base(self, part: int) -> dict[str, int]:
        """Returns where a part's share begins, by axis."""
        return {axis: int(base[part]) for axis, base in self.bases.items()}

    def write(self, part: int, fill: Callable[[Arrays], None], moved: Mapping[str, int]) -> None:
        """Writes a part's share of the arrays, and marks it as complete.

        Args:
            part: number of the part.
            fill: puts the content into the share.
            moved: ids that were moved into the range of their table, by field.
        """
        arrays = self._share(part, "r+")
        fill(arrays)
        for array in arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
        sums = {name: checksum(array) for name, array in arrays.items()}
        marker = self._marker(part)
        temporary = marker.with_suffix(".new")
        temporary.write_text(json.dumps({"checksums": sums, "moved": dict(moved)}))
        temporary.replace(marker)

    def damage(self, part: int) -> list[str]:
        """Returns the arrays whose share of a part is not what was written."""
        marker = self._read_marker(part)
        if marker is None:
            return [self._marker(part).name]
        sums = marker["checksums"]
        return [n for n, a in self._share(part, "r").items() if checksum(a) != sums.get(n)]

    def moved(self, part: int) -> dict[str, int]:
        """Returns how many ids of a part were moved into the range of their table, by field."""
        marker = self._read_marker(part)
        return {} if marker is None else marker["moved"]

    def forget(self, part: int) -> None:
        """Lets a part be packed again."""
        self._marker(part).unlink(missing_ok=True)

    def _share(self, part: int, mode: str) -> Arrays:
        begin, size = self.base(part), self.sizes[part]
        return {
            name: self._map(name, mode, begin[s.axis], begin[s.axis] + size_of(size, s.axis))
            for name, s in self.specs.items()
        }


def checksum(values: Array) -> str:
    """Returns a checksum at about the speed of reading.

    The words of 8 bytes are summed in 1,024 lanes, modulo 2^64, and the sums are hashed (CRC-32).
    """
    data = values.reshape(-1).view(np.uint8)
    words = len(data) // (8 * _LANES) * (8 * _LANES)
    lanes = data[:words].view(np.uint64).reshape(-1, _LANES).sum(axis=0, dtype=np.uint64)
    return f"{zlib.crc32(data[words:].tobytes(), zlib.crc32(lanes.tobytes())):08x}"


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


def digest(*values: object) -> str:
    """Returns a hash of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
