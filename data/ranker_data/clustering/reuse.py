"""What a clustering keeps beside its result, so that the next one need not repeat it.

    clusters/part-00000.parquet     user, fingerprint of the clustered events, cluster of each

A user whose clustered events have the same fingerprint as before keeps the clusters of before.
Everything that follows from them (ids, means, sizes) is computed anew, with the vectors of now.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker_data.columns import Column, IntArray, Ragged, expand_ranges, offsets_of, plain
from ranker_data.layout import part_name
from ranker_data.reader import list_parts

CLUSTERING_FILE = "clustering.json"
_FOLDER = "clusters"

BoolArray = np.ndarray[tuple[int], np.dtype[np.bool_]]
Hashes = NDArray[np.uint64]


def fingerprints(columns: dict[str, Column], past: BoolArray) -> tuple[IntArray, Hashes, IntArray]:
    """Returns the users that have past events, a hash of these events, and their number.

    Args:
        columns: an event log by user and time.
        past: [n] which events count; a user's past comes before the rest.
    """
    users, first, counts = np.unique(
        plain(columns["user"])[past], return_index=True, return_counts=True
    )
    rows = np.zeros(int(past.sum()), np.uint64)
    for name in sorted(columns.keys() - {"user"}):
        rows = _mix(rows ^ _hash(columns[name])[past])
    place = np.arange(len(rows)) - np.repeat(first, counts)
    return users, _sums(_mix(rows ^ place.astype(np.uint64)), offsets_of(counts)), counts


def write_clusters(
    root: Path, part: int, users: IntArray, found: Hashes, counts: IntArray, cluster: IntArray
) -> None:
    """Writes the cluster of every past event of a part, by user."""
    lists = pa.ListArray.from_arrays(
        pa.array(offsets_of(counts).astype(np.int32)), pa.array(cluster.astype(np.int32))
    )
    path = root / _FOLDER / part_name(part)
    path.parent.mkdir(exist_ok=True)
    table = pa.table({"user": users, "fingerprint": found, "cluster": lists})
    pq.write_table(table, path, compression="zstd")


def known_clusters(
    previous: Path, part: int, users: IntArray, found: Hashes, counts: IntArray
) -> IntArray:
    """Returns the former cluster of every past event, -1 where the user's past has changed."""
    table = pq.read_table(previous / _FOLDER / part_name(part)).combine_chunks()
    former = table["user"].to_numpy()
    known = np.full(int(counts.sum()), -1, np.int64)
    if not len(former):
        return known
    place = np.minimum(np.searchsorted(former, users), len(former) - 1)
    same = (former[place] == users) & (table["fingerprint"].to_numpy()[place] == found)
    lists = table["cluster"].combine_chunks()
    begins = lists.offsets.to_numpy().astype(np.int64)[place[same]]
    starts = offsets_of(counts)[:-1][same]
    # as many events as now: the number is in the hash
    values = lists.values.to_numpy()
    known[expand_ranges(starts, counts[same])] = values[expand_ranges(begins, counts[same])]
    return known


def check_previous(previous: Path, options: dict[str, Any], num_parts: int) -> None:
    """Checks that another clustering was made in the same way.

    Raises:
        ValueError: it has other options or parts, or is none.
    """
    path = previous / CLUSTERING_FILE
    if not path.is_file() or not (previous / _FOLDER).is_dir():
        raise ValueError(
            f"previous={previous} is no clustered data set of this version; leave it out"
        )
    former = json.loads(path.read_text(encoding="utf-8")).get("options")
    wanted = json.loads(json.dumps(options))
    if former != wanted:
        raise ValueError(
            f"previous={previous} was clustered with {former}, not {wanted}; give the same options "
            "or leave it out"
        )
    if (count := len(list_parts(previous / "behaviors"))) != num_parts:
        raise ValueError(
            f"previous={previous} has {count} parts and the source {num_parts}: users may lie in "
            "other parts; leave it out"
        )


def _hash(column: Column) -> Hashes:
    """Returns a hash of each row."""
    if isinstance(column, Ragged):
        place = np.arange(len(column.values)) - np.repeat(column.offsets[:-1], column.lengths)
        values = _mix(_bits(column.values) ^ _mix(place.astype(np.uint64)))
        return _mix(_sums(values, column.offsets) ^ column.lengths.astype(np.uint64))
    return _bits(column)


def _bits(values: NDArray[Any]) -> Hashes:
    words = values if values.dtype.kind in "iu" else values.view(f"u{values.dtype.itemsize}")
    return words.astype(np.uint64)


def _sums(values: Hashes, offsets: IntArray) -> Hashes:
    """Returns the sum of each range, modulo 2^64."""
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    return totals[offsets[1:]] - totals[offsets[:-1]]


def _mix(words: Hashes) -> Hashes:
    """Scatters the bits of each word (splitmix64)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
