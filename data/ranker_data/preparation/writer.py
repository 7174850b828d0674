"""Writes the Parquet files of one part of a prepared data set, row group by row group."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker_data.layout import (
    SPLITS,
    behaviors_arrow_schema,
    behaviors_path,
    samples_arrow_schema,
    samples_path,
)
from ranker_data.schema import Schema

ROW_GROUP_ROWS = 32_768


class PartWriter:
    """The event log and the samples of one part.

    Rows may come in any number of batches, but in (user, time) order; no more than a row group of
    each file is held in memory. All files of the part exist after closing, if need be without rows.
    Different parts may be written by different processes.
    """

    def __init__(self, *, root: Path, schema: Schema, part: int):
        self._behaviors = _PartFile(behaviors_path(root, part), behaviors_arrow_schema(schema))
        samples = samples_arrow_schema(schema)
        self._samples = {
            split: _PartFile(samples_path(root, split, part), samples) for split in SPLITS
        }

    def write_behaviors(self, table: pa.Table) -> None:
        """Appends events; columns as in `layout.behaviors_arrow_schema`."""
        self._behaviors.write(table)

    def write_samples(self, split: str, table: pa.Table) -> None:
        """Appends samples to one split; columns as in `layout.samples_arrow_schema`."""
        self._samples[split].write(table)

    def write_split_samples(self, table: pa.Table) -> None:
        """Appends samples to the split that their column `split` names."""
        for split in SPLITS:
            self.write_samples(split, table.filter(pc.equal(table["split"], split)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in (self._behaviors, *self._samples.values()):
            file.close()


class _PartFile:
    def __init__(self, path: Path, schema: pa.Schema):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._schema = schema
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", write_page_checksum=True, write_statistics=True
        )
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        self._last: tuple[int, int] | None = None

    def write(self, table: pa.Table) -> None:
        table = table.select(self._schema.names).cast(self._schema)
        if table.num_rows == 0:
            return
        self._check_order(table["user"].to_numpy(), table["time"].to_numpy())
        self._pending.append(table)
        self._num_pending += table.num_rows
        if self._num_pending >= ROW_GROUP_ROWS:
            self._flush(self._num_pending // ROW_GROUP_ROWS * ROW_GROUP_ROWS)

    def close(self) -> None:
        self._flush(self._num_pending)
        self._writer.close()

    def _flush(self, num_rows: int) -> None:
        if num_rows == 0:
            return
        table = pa.concat_tables(self._pending)
        self._writer.write_table(table.slice(0, num_rows), row_group_size=ROW_GROUP_ROWS)
        self._pending = [table.slice(num_rows)]
        self._num_pending -= num_rows

    def _check_order(
        self,
        user: "np.ndarray[tuple[int], np.dtype[np.int64]]",
        time: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    ) -> None:
        earlier = (user[1:] == user[:-1]) & (time[1:] < time[:-1])
        assert not ((user[1:] < user[:-1]) | earlier).any(), (
            f"{self._path}: rows out of (user, time) order"
        )
        first = (int(user[0]), int(time[0]))
        assert self._last is None or self._last <= first, (
            f"{self._path}: batches out of (user, time) order"
        )
        self._last = (int(user[-1]), int(time[-1]))
