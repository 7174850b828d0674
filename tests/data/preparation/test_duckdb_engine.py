from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.preparation.duckdb_engine import DuckDBEngine, readable_errors
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.preparation.prepare import prepare
from ranker_data.reader import DataError
from ranker_data.schema import Field, Label, Task

T0 = 1_600_000_000
NUM_EVENTS, NUM_SAMPLES = 1_500_000, 30_000
PLAN = Preparation(
    name="large",
    time_unit="s",
    fields=(Field(name="item_id", kind="id", table="item"),),
    behaviors=(
        Field(name="item_id", kind="id", table="item"),
        Field(name="dwell", kind="dense"),
    ),
    labels=(Label(name="click"),),
    tasks=(Task(name="ctr", label="click"),),
    split=TimeSplit(valid_fraction=0.1, test_fraction=0.1),
    # all of it is sorted at once
    num_parts=1,
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events of 36 MB a copy in memory, and samples."""
    folder = tmp_path_factory.mktemp("raw")
    draw = np.random.default_rng(0)
    for name, rows in (("events", NUM_EVENTS), ("samples", NUM_SAMPLES)):
        columns = {
            "user": draw.integers(0, 2000, rows),
            "time": T0 + draw.integers(0, 10**6, rows),
            "item_id": draw.integers(0, 200_000, rows),
        }
        if name == "events":
            columns["dwell"] = draw.random(rows).astype(np.float32)
        else:
            columns["click"] = draw.integers(0, 2, rows)
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def run(raw: Path, out: Path, engine: DuckDBEngine) -> None:
    prepare(
        PLAN,
        events=raw / "events.parquet",
        samples=raw / "samples.parquet",
        out=out,
        engine=engine,
    )


def test_input_larger_than_the_memory_limit_is_prepared(raw: Path, tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    small = DuckDBEngine(memory_limit="50MB", num_threads=1, spill_folder=str(spill))
    run(raw, tmp_path / "small", small)
    run(raw, tmp_path / "large", DuckDBEngine(num_threads=1))
    for path in sorted((tmp_path / "large").rglob("*.parquet")):
        other = tmp_path / "small" / path.relative_to(tmp_path / "large")
        assert pq.read_table(path, partitioning=None) == pq.read_table(other, partitioning=None)
    # what was spilled is gone
    assert not spill.exists() or not list(spill.iterdir())


def test_a_full_spill_disk_is_named_with_the_remedy(raw: Path, tmp_path: Path) -> None:
    engine = DuckDBEngine(memory_limit="50MB", num_threads=1, spill_limit="1MB")
    with pytest.raises(DataError, match=r"disk .* is full .*set engine.spill_folder=<folder on a"):
        run(raw, tmp_path / "out", engine)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_space_is_named_like_a_limit() -> None:
    # what the engine raises when writing fails with ENOSPC
    problem = "IO Error: Could not write all bytes to file: No space left on device"
    with (
        pytest.raises(DataError, match=r"is full .*No space left on device"),
        readable_errors(),
    ):
        raise duckdb.IOException(problem)


def test_too_little_memory_is_named_with_the_remedy(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"memory limit is too small .*raise engine.memory_limit"):
        run(raw, tmp_path / "out", DuckDBEngine(memory_limit="2MB", num_threads=1))
