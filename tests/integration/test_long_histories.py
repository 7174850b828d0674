"""TWIN in a run: the same on 1 and 2 ranks, and on histories clustered by vectors of a run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranker_data.preparation.summary import write_stats
from ranker_data.schema import read_schema


def test_two_ranks_train_like_one_with_din_and_twin(runner: Any) -> None:
    overrides = ["sequence=[din,twin]", "sequence.din.max_length=5", "sequence.twin.k=4"]
    overrides += ["loader.max_length=30", "trainer.epochs=1"]
    runner.alone("one", *overrides)
    done = runner.torchrun("two", *overrides)
    assert done.returncode == 0, done.stderr
    found, expected = runner.records("two"), runner.records("one")
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        assert one.pop("kind") == other.pop("kind")
        assert one == pytest.approx(other, abs=1e-5, rel=0)


def test_histories_are_clustered_by_a_runs_vectors_and_trained_on(
    make_tiny_dataset: Callable[..., Path], make_runner: Any, project_root: Path, tmp_path: Path
) -> None:
    source, clustered = make_tiny_dataset(tmp_path / "source"), tmp_path / "clustered"
    write_stats(
        source,
        read_schema(source),
        digest="tiny",
        num_parts=4,
        checks=[],
        wanted_splits=[],
        split_in_time=False,
    )
    runner = make_runner(source)
    runner.alone("vectors", "trainer.epochs=1")
    script = [sys.executable, str(project_root / "scripts" / "cluster_histories.py")]
    script += ["--source", str(source), "--out", str(clustered), "--max-size", "3"]
    run = ["--run", str(runner.run_root / "vectors")]
    done = subprocess.run([*script, *run], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "past events became" in done.stdout

    make_runner(clustered).alone("v2", "sequence=[twin]", "trainer.epochs=1")
    assert np.isfinite([r["loss"] for r in runner.records("v2") if r["kind"] == "train"]).all()

    missing = ["--run", str(tmp_path / "none")]
    done = subprocess.run([*script, *missing], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "has no whole checkpoint" in done.stderr
