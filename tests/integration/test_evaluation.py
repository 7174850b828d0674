"""Evaluation as a whole: the same on 1 and 2 ranks, slices, cards, reports, comparisons."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from ranker.config import to_plain
from ranker.evaluate_run import evaluate_run
from ranker.evaluation_config import build_comparison, build_evaluation
from ranker.report.from_runs import compare_runs
from ranker.report.predictions import read_predictions

SLICES = (
    "slices=[user_activity,hour,category,user_id,count.item_id,train_count.item_id,age.item_id]"
)


def evaluate(project_root: Path, run: Path, *overrides: str) -> Path:
    with initialize_config_dir(str(project_root / "configs"), version_base="1.3"):
        config = to_plain(compose("evaluate", [f"run={run}", *overrides]))
    evaluate_run(*build_evaluation(config))
    return run / "evaluations" / "test"


def numbers(value: Any, path: str = "") -> dict[str, float]:
    """Every number of a JSON value by its path."""
    if isinstance(value, dict):
        return {
            k: v for key, item in value.items() for k, v in numbers(item, f"{path}.{key}").items()
        }
    if isinstance(value, list):
        return {
            k: v for i, item in enumerate(value) for k, v in numbers(item, f"{path}.{i}").items()
        }
    return {path: value} if isinstance(value, int | float) else {}


def projected(run: Path) -> dict[str, tuple[Any, Any]]:
    """Ids and vectors that TensorBoard's projector shows, by table."""
    found = {}
    for vectors in (run / "tensorboard" / "evaluation-test").rglob("tensors.tsv"):
        ids = np.loadtxt(vectors.with_name("metadata.tsv"), dtype=int)
        found[vectors.parent.name] = ids, np.loadtxt(vectors)
    return found


def test_two_ranks_evaluate_like_one(runner: Any, project_root: Path) -> None:
    runner.alone("run")
    run = runner.run_root / "run"
    overrides = [SLICES, "num_replicates=20", "report=ranking", "split=test"]
    overrides += ["projector_tables=[item_id,tag]", "projector_rows=9"]
    folder = evaluate(project_root, run, *overrides)
    one = read_predictions(folder / "predictions.parquet")
    report_one = json.loads((folder / "report.json").read_text())
    vectors_one = projected(run)
    done = runner.torchrun("", f"run={run}", *overrides, script="evaluate")
    assert done.returncode == 0, done.stderr
    two = read_predictions(folder / "predictions.parquet")
    report_two = json.loads((folder / "report.json").read_text())
    np.testing.assert_array_equal(one.sample_id, two.sample_id)
    for name, values in one.slices.items():
        np.testing.assert_array_equal(values, two.slices[name])
    np.testing.assert_allclose(one.tasks["ctr"].logit, two.tasks["ctr"].logit, atol=1e-6, rtol=0)
    found = numbers(report_two["tasks"])
    assert found == pytest.approx(numbers(report_one["tasks"]), abs=1e-5)
    metrics = [path for path in found if ".metrics." in path and path.endswith("value")]
    assert len(metrics) > 20
    for path in metrics:
        assert found[path] == pytest.approx(numbers(report_one["tasks"])[path], abs=1e-6)
    tables = {table["column"]: table for table in report_one["tasks"][0]["slices"]}
    assert {"user_activity", "hour", "category", "user_id", "count.item_id"} <= set(tables)
    assert [row["slice"] for row in tables["domain"]["slices"]] == ["home", "search"]
    assert "mrr" in report_one["tasks"][0]["more"]
    files = {path.name for path in folder.iterdir()}
    assert {"report.md", "report.html", "model_card.md", "data_card.md"} <= files
    columns = set(tables)
    assert {"train_count.item_id", "age.item_id"} <= columns
    vectors_two = projected(run)
    assert vectors_two.keys() == {"item_id", "tag"}
    for table, (ids, vectors) in vectors_two.items():
        np.testing.assert_array_equal(ids, vectors_one[table][0])
        np.testing.assert_allclose(vectors, vectors_one[table][1], atol=1e-6)
        assert len(ids) == min(9, 8 if table == "tag" else 39)
        assert 0 not in ids


def test_an_unknown_slice_is_named(runner: Any, project_root: Path) -> None:
    runner.alone("run", "trainer.max_steps=1")
    with pytest.raises(ValueError, match=r"slices names 'city'; give .* id field of the samples"):
        evaluate(project_root, runner.run_root / "run", "slices=[city]")


def test_a_baseline_and_a_table_must_be_there(runner: Any, project_root: Path) -> None:
    runner.alone("run", "trainer.max_steps=1")
    run = runner.run_root / "run"
    with pytest.raises(ValueError, match="has no predictions of split test; run scripts/eval"):
        evaluate(project_root, run, f"baseline={run}")
    with pytest.raises(ValueError, match="projector_tables names 'itm'"):
        evaluate(project_root, run, "projector_tables=[itm]")


def test_runs_are_compared(runner: Any, project_root: Path, tmp_path: Path) -> None:
    runs: list[str] = []
    for name in ("a", "b"):
        runner.alone(name, f"seed={len(runs)}", "trainer.max_steps=2")
        evaluate(project_root, runner.run_root / name, "num_replicates=5")
        runs.append(str(runner.run_root / name))
    with initialize_config_dir(str(project_root / "configs"), version_base="1.3"):
        config = to_plain(compose("compare", [f"runs=[{','.join(runs)}]", f"out={tmp_path}"]))
    compare_runs(build_comparison(config))
    # the report of one run tells what changed against the other
    folder = evaluate(
        project_root, runner.run_root / "b", "num_replicates=5", f"baseline={runner.run_root / 'a'}"
    )
    against = json.loads((folder / "report.json").read_text())["baseline"]
    assert against["run"] == "a"
    assert against["changes"] == [["seed", "0", "1"]]
    assert "ctr: AUC " in against["summary"]
    assert "Against a" in (folder / "report.html").read_text()
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["runs"] == runs
    assert (tmp_path / "comparison.html").is_file()
