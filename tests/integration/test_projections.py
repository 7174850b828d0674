"""Projected items and the hit rate of a search, from a run to search.json."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from ranker.config import to_plain
from ranker.evaluate_run import evaluate_run
from ranker.evaluation_config import build_evaluation, build_projection
from ranker.project_run import project_run
from ranker.report.predictions import read_predictions

TWIN = ["sequence=[twin]", "sequence.twin.k=3", "loader.max_length=30"]
# two checkpoints are kept: one in the middle, and the last
TRAINING = [*TWIN, "trainer.epochs=2", "trainer.keep_checkpoints=9", "optimizer.sparse_lr=1.0"]


def plain(project_root: Path, name: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(project_root / "configs"), version_base="1.3"):
        return to_plain(compose(name, list(overrides)))


def evaluate(project_root: Path, run: Path, *overrides: str) -> tuple[dict[str, Any], Any]:
    few = [f"run={run}", "num_replicates=20", "checkpoint=last", *overrides]
    evaluate_run(*build_evaluation(plain(project_root, "evaluate", *few)))
    folder = run / "evaluations" / "test"
    search = json.loads((folder / "search.json").read_text())
    return search, read_predictions(folder / "predictions.parquet")


def test_a_stale_cache_misses_what_a_fresh_one_finds(
    runner: Any, project_root: Path, tmp_path: Path
) -> None:
    runner.alone("run", *TRAINING)
    run = runner.run_root / "run"
    steps = sorted(int(p.name.removeprefix("step-")) for p in (run / "checkpoints").iterdir())
    assert len(steps) > 2
    for step in (steps[0], steps[-1]):
        overrides = [f"run={run}", f"checkpoint={step}", f"out={tmp_path / str(step)}"]
        project_run(*build_projection(plain(project_root, "project_items", *overrides)))
    stored = np.load(tmp_path / str(steps[0]) / "twin" / "item_id.npy")
    assert stored.shape == (40, 64)
    assert np.isfinite(stored).all()

    own, expected = evaluate(project_root, run)
    fresh, same = evaluate(project_root, run, f"projections={tmp_path / str(steps[-1])}")
    stale, _ = evaluate(project_root, run, f"projections={tmp_path / str(steps[0])}")
    assert own["encoder"] == "twin"
    assert own["k"] == 3
    assert own["hit_rate"] == 1.0
    assert fresh["hit_rate"] == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(
        same.tasks["ctr"].logit, expected.tasks["ctr"].logit, atol=1e-5, rtol=0
    )
    assert stale["hit_rate"] < fresh["hit_rate"]
    low, high = stale["interval"]
    assert low < stale["hit_rate"] < high
    assert sum(bucket["count"] for bucket in stale["by_length"]) == stale["count"] > 10
    # three of three are always found
    assert stale["by_length"][0]["hit_rate"] == 1.0

    overrides = [f"run={run}", f"out={tmp_path / str(steps[0])}"]
    again = build_projection(plain(project_root, "project_items", *overrides))
    with pytest.raises(ValueError, match="exists; choose another folder"):
        project_run(*again)
    with pytest.raises(ValueError, match=r"has no projections\.json"):
        evaluate(project_root, run, f"projections={tmp_path}")


def test_two_ranks_project_and_search_like_one(
    runner: Any, project_root: Path, tmp_path: Path
) -> None:
    runner.alone("run", *TWIN, "trainer.epochs=1")
    run = runner.run_root / "run"
    one = tmp_path / "one"
    project_run(*build_projection(plain(project_root, "project_items", f"run={run}", f"out={one}")))
    expected, _ = evaluate(project_root, run, f"projections={one}")
    two = tmp_path / "two"
    done = runner.torchrun("", f"run={run}", f"out={two}", script="project_items")
    assert done.returncode == 0, done.stderr
    assert "projected 40 of item_id" in done.stdout
    for field in ("item_id", "category"):
        first, second = (np.load(folder / "twin" / f"{field}.npy") for folder in (one, two))
        np.testing.assert_allclose(first, second, atol=1e-7, rtol=0)
    overrides = [f"run={run}", f"projections={two}", "num_replicates=20", "checkpoint=last"]
    done = runner.torchrun("", *overrides, script="evaluate")
    assert done.returncode == 0, done.stderr
    found = json.loads((run / "evaluations" / "test" / "search.json").read_text())
    assert found["hit_rate"] == pytest.approx(expected["hit_rate"], abs=1e-3)
    assert found["count"] == expected["count"]


def test_a_run_without_twin_has_nothing_to_project(
    runner: Any, project_root: Path, tmp_path: Path
) -> None:
    runner.alone("run", "trainer.epochs=1")
    script = [sys.executable, str(project_root / "scripts" / "project_items.py")]
    arguments = [f"run={runner.run_root / 'run'}", f"out={tmp_path / 'out'}"]
    done = subprocess.run([*script, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "the run has no TWIN encoder" in done.stderr
    assert not (tmp_path / "out").exists()
