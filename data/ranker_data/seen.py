"""How often, and since when, the ids of a field occur in the data that a model learned from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker_data.layout import behaviors_path, samples_path
from ranker_data.schema import Schema

IntArray = NDArray[np.int64]

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class SeenIds:
    """Distinct ids of one field, ascending; S of them."""

    ids: IntArray  # [S]
    counts: IntArray  # [S] rows of the training split
    first: IntArray  # [S] time of the first training row or behaviour

    def counts_of(self, ids: IntArray) -> IntArray:
        """Training rows with each id [n], 0 where there is none."""
        if not len(self.ids):
            return np.zeros_like(ids)
        place = self._find(ids)
        return np.where(self.ids[place] == ids, self.counts[place], 0)

    def ages_of(self, ids: IntArray, times: IntArray) -> IntArray:
        """Time since each id [n] was first seen, -1 where it was not seen before."""
        if not len(self.ids):
            return np.full_like(ids, -1)
        place = self._find(ids)
        known = (self.ids[place] == ids) & (self.first[place] < times)
        return np.where(known, times - self.first[place], -1)

    def _find(self, ids: IntArray) -> IntArray:
        """Where each id [n] would be; there is at least one."""
        return np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)


def read_seen_ids(root: Path, schema: Schema, field: str) -> SeenIds:
    """Reads one column of the training split, and the behaviour columns of the same table.

    Args:
        root: of the prepared data.
        schema: of it.
        field: a single-valued id field of the samples.
    """
    (table,) = (known.table for known in schema.fields if known.name == field)
    samples = list(_summaries(_parts(partial(samples_path, root, "train")), field))
    behaviors = [
        summary
        for known in schema.behaviors
        if known.table == table and known.kind == "id"
        for summary in _summaries(_parts(partial(behaviors_path, root)), known.name)
    ]
    pieces = [*samples, *((ids, counts * 0, first) for ids, counts, first in behaviors)]
    return _merge(pieces)


def _parts(path_of: Callable[[int], Path]) -> Iterator[Path]:
    """The files of all parts."""
    return takewhile(Path.is_file, map(path_of, count()))


Summary = tuple[IntArray, IntArray, IntArray]


def _summaries(paths: Iterator[Path], column: str) -> Iterator[Summary]:
    """Distinct ids with their counts and first times, a batch of rows at a time."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=[column, "time"], batch_size=1 << 20):
                ids = batch.column(column).to_numpy(zero_copy_only=False).astype(np.int64)
                times = batch.column("time").to_numpy(zero_copy_only=False)
                seen = _merge([(ids, np.ones_like(ids), times)])
                yield seen.ids, seen.counts, seen.first


def _merge(pieces: list[Summary]) -> SeenIds:
    if not pieces:
        empty = np.empty(0, dtype=np.int64)
        return SeenIds(ids=empty, counts=empty, first=empty)
    ids, counts, first = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
    distinct, place = np.unique(ids, return_inverse=True)
    summed = np.bincount(place, weights=counts, minlength=len(distinct)).astype(np.int64)
    earliest = np.full(len(distinct), NEVER)
    np.minimum.at(earliest, place, first)
    return SeenIds(ids=distinct, counts=summed, first=earliest)
