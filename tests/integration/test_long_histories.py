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

DIN_AND_TWIN = [
    "sequence=[din,twin]",
    "sequence.din.max_length=5",
    "sequence.twin.k=4",
    "sequence.twin.time_frequencies=2",
    "loader.max_length=30",
]
SIM_SOFT = [
    "sequence=[sim_soft]",
    "sequence.sim_soft.k=4",
    "sequence.sim_soft.auxiliary_weight=1.0",
    "sequence.sim_soft.auxiliary_samples=6",
    "loader.max_length=30",
]


@pytest.mark.parametrize(
    "overrides", [[*DIN_AND_TWIN, "sequence.twin.refresh_steps=2"], SIM_SOFT], ids=["twin", "sim"]
)
def test_two_ranks_train_like_one(runner: Any, overrides: list[str]) -> None:
    runner.alone("one", *overrides, "trainer.epochs=1")
    done = runner.torchrun("two", *overrides, "trainer.epochs=1")
    assert done.returncode == 0, done.stderr
    found, expected = runner.records("two"), runner.records("one")
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        assert one["kind"] == other["kind"]
        # ranks of a few rows that are all but tied may change sides
        losses = {name: value for name, value in other.items() if "loss" in name}
        assert losses
        assert {name: one[name] for name in losses} == pytest.approx(losses, abs=1e-5, rel=0)


def test_an_interrupted_run_with_a_stale_cache_ends_bit_identical(runner: Any) -> None:
    # stops in the middle between two refreshes, so that the cache has to come from the checkpoint
    stale = [*DIN_AND_TWIN, "sequence.twin.refresh_steps=4", "optimizer.sparse_lr=1.0"]
    runner.alone("whole", *stale)
    runner.alone("parts", *stale, "trainer.max_steps=2")
    runner.alone("parts", *stale, "trainer.max_steps=7")
    runner.alone("parts", *stale)
    parts = {(r["kind"], r["step"]): r for r in runner.records("parts")}
    whole = runner.records("whole")
    assert max(record["step"] for record in whole) > 8
    for record in whole:
        assert parts[record["kind"], record["step"]] == record
    # and it is stale: a search with the weights of now goes another way
    runner.alone("fresh", *DIN_AND_TWIN, "optimizer.sparse_lr=1.0")
    assert runner.records("fresh")[-1] != whole[-1]


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
