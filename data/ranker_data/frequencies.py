"""How many training samples contain an id: n_j of DIN's mini-batch aware regularisation.

    <root>/frequencies/<table>.npy     int64 [num_embeddings]
    <root>/frequencies/about.json      the length of the histories that were counted

A sample contains the ids of its own fields and those of the behaviours that it sees. An id counts
once a sample, however often it is in it.
"""

import json
from pathlib import Path

import numpy as np

from ranker_data.columns import Column, IntArray, Ragged, expand_ranges, take
from ranker_data.reader import list_parts
from ranker_data.schema import Schema
from ranker_data.shard import Shard, read_shard

FREQUENCY_FOLDER = "frequencies"
# samples whose ids are counted at once
_BLOCK = 20_000


def frequency_path(folder: Path, table: str) -> Path:
    """Returns the file with the counts of one table."""
    return folder / f"{table}.npy"


def write_frequencies(root: Path, schema: Schema, *, max_length: int) -> dict[str, IntArray]:
    """Counts the ids of all tables that have a vocabulary and writes the counts.

    Args:
        root: prepared data set.
        schema: of it.
        max_length: longest history that a sample sees, as in training.

    Returns:
        The counts by table.
    """
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}; must be at least 1")
    counts = {
        table.name: np.zeros(table.num_embeddings, np.int64)
        for table in schema.tables
        if table.num_embeddings is not None
    }
    for part in range(len(list_parts(root / "samples" / "train"))):
        shard = read_shard(root, schema, "train", part)
        for table, count in counts.items():
            _add(count, shard, schema, table, max_length)
    folder = root / FREQUENCY_FOLDER
    folder.mkdir(exist_ok=True)
    for table, count in counts.items():
        np.save(frequency_path(folder, table), count)
    (folder / "about.json").write_text(json.dumps({"max_length": max_length}))
    return counts


def _add(count: IntArray, shard: Shard, schema: Schema, table: str, max_length: int) -> None:
    """Adds the samples of a shard that contain each id of a table."""
    first = np.maximum(shard.first_event, shard.end_event - max_length)
    for low in range(0, len(first), _BLOCK):
        rows = np.arange(low, min(low + _BLOCK, len(first)))
        seen = shard.end_event[rows] - first[rows]
        events = expand_ranges(first[rows], seen)
        # one number for a sample and an id in it
        pairs = [
            _pairs(shard.samples[field.name], rows, np.arange(len(rows)), len(count))
            for field in schema.fields
            if field.table == table
        ] + [
            _pairs(
                shard.behaviors[field.name],
                events,
                np.repeat(np.arange(len(rows)), seen),
                len(count),
            )
            for field in schema.behaviors
            if field.table == table
        ]
        if pairs:
            ids = np.unique(np.concatenate(pairs)) % len(count)
            count += np.bincount(ids, minlength=len(count))


def _pairs(column: Column, rows: IntArray, samples: IntArray, num_ids: int) -> IntArray:
    values = take(column, rows)
    if isinstance(values, Ragged):
        return np.repeat(samples, values.lengths) * num_ids + values.values
    return samples * num_ids + values
