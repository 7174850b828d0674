from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.layout import SPLITS, behaviors_arrow_schema, behaviors_path, samples_path
from ranker_data.preparation.writer import ROW_GROUP_ROWS, PartWriter
from ranker_data.schema import Field, Label, Schema, Table

SCHEMA = Schema(
    name="tiny",
    time_unit="s",
    tables=(Table(name="item", num_embeddings=9),),
    fields=(Field(name="item_id", kind="id", table="item"),),
    behaviors=(Field(name="item_id", kind="id", table="item"),),
    labels=(Label(name="click"),),
)


def events(user: list[int], time: list[int]) -> pa.Table:
    columns = {"user": user, "time": time, "item_id": [1] * len(user)}
    return pa.table(columns, schema=behaviors_arrow_schema(SCHEMA))


def test_batches_become_full_row_groups_with_checksums(tmp_path: Path) -> None:
    total = 2 * ROW_GROUP_ROWS + 1000
    times = np.arange(total)
    with PartWriter(root=tmp_path, schema=SCHEMA, part=3) as writer:
        for begin in range(0, total, 7_000):
            rows = times[begin : begin + 7_000].tolist()
            writer.write_behaviors(events([5] * len(rows), rows))
    path = behaviors_path(tmp_path, 3)
    with pq.ParquetFile(path) as file:
        meta = file.metadata
        sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        assert sizes == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 1000]
        assert meta.row_group(0).column(0).compression == "ZSTD"
    np.testing.assert_array_equal(pq.read_table(path)["time"].to_numpy(), times)
    # a flipped bit in a page is noticed
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"(?i)crc|checksum|corrupt"):
        pq.read_table(path, page_checksum_verification=True)


def test_all_files_of_a_part_exist(tmp_path: Path) -> None:
    with PartWriter(root=tmp_path, schema=SCHEMA, part=0):
        pass
    for path in (behaviors_path(tmp_path, 0), *(samples_path(tmp_path, s, 0) for s in SPLITS)):
        assert pq.read_table(path, partitioning=None).num_rows == 0


@pytest.mark.parametrize(
    "batches",
    [
        [([1, 1], [5, 4])],
        [([2, 1], [1, 1])],
        [([1, 2], [1, 1]), ([1], [9])],
        [([1], [5]), ([1], [4])],
    ],
)
def test_rows_out_of_order_are_a_bug(
    batches: list[tuple[list[int], list[int]]], tmp_path: Path
) -> None:
    *good, bad = [events(user, time) for user, time in batches]
    with PartWriter(root=tmp_path, schema=SCHEMA, part=0) as writer:
        for batch in good:
            writer.write_behaviors(batch)
        with pytest.raises(AssertionError, match=r"out of \(user, time\) order"):
            writer.write_behaviors(bad)
