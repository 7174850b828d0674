"""Training begins, and goes on, only on data that is sound and the same."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ranker_data.layout import samples_path
from ranker_data.reader import DataError


def test_changed_or_damaged_data_stops_one_and_two_ranks(
    tiny_dataset: Path, tmp_path: Path, make_runner: Callable[[Path], Any]
) -> None:
    data = Path(shutil.copytree(tiny_dataset, tmp_path / "data"))
    runner = make_runner(data)
    settings = ["trainer.epochs=1", "trainer.max_steps=2"]
    runner.alone("kept", *settings)
    path = samples_path(data, "train", 2)
    sound = path.read_bytes()
    pq.write_table(pq.read_table(path, partitioning=None).slice(1), path)
    done = runner.torchrun("kept", "trainer.epochs=2")
    assert done.returncode != 0
    assert done.stderr.count("samples/train/part-00002.parquet changed") == 1
    assert "begin a new run" in done.stderr
    # every bad file at once, of every split
    path.write_bytes(sound[:-30])
    samples_path(data, "valid", 0).write_bytes(b"")
    with pytest.raises(DataError, match=r"2 problem\(s\) in the data") as error:
        runner.alone("new", *settings)
    for name in ("train/part-00002.parquet", "valid/part-00000.parquet"):
        assert f"samples/{name} is not a readable" in str(error.value)
