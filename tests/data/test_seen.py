from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ranker_data.schema import read_schema
from ranker_data.seen import SeenIds, read_seen_ids


def test_equals_a_loop_over_the_files(tiny_dataset: Path) -> None:
    schema = read_schema(tiny_dataset)
    counts: dict[int, int] = {}
    first: dict[int, int] = {}
    for kind in ("samples/train", "behaviors"):
        for path in sorted((tiny_dataset / kind).glob("*.parquet")):
            for row in pq.read_table(path, columns=["item_id", "time"]).to_pylist():
                item, time = row["item_id"], row["time"]
                counts[item] = counts.get(item, 0) + (kind != "behaviors")
                first[item] = min(first.get(item, time), time)
    seen = read_seen_ids(tiny_dataset, schema, "item_id")
    np.testing.assert_array_equal(seen.ids, sorted(first))
    np.testing.assert_array_equal(seen.counts, [counts[item] for item in sorted(first)])
    np.testing.assert_array_equal(seen.first, [first[item] for item in sorted(first)])
    assert seen.counts.sum() > 0


def test_what_was_not_seen() -> None:
    seen = SeenIds(ids=np.array([3, 9]), counts=np.array([5, 0]), first=np.array([100, 200]))
    ids, times = np.array([2, 3, 9, 9, 11]), np.array([150, 150, 150, 260, 150])
    assert seen.counts_of(ids).tolist() == [0, 5, 0, 0, 0]
    assert seen.ages_of(ids, times).tolist() == [-1, 50, -1, 60, -1]
    empty = np.empty(0, dtype=np.int64)
    nothing = SeenIds(ids=empty, counts=empty, first=empty)
    assert nothing.counts_of(ids).tolist() == [0] * 5
    assert nothing.ages_of(ids, times).tolist() == [-1] * 5
