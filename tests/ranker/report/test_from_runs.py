import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ranker.report.from_runs import CompareOptions, compare_runs
from ranker.report.predictions import Predictions, write_predictions
from tests.ranker.report.test_groups import noisy

Make = Callable[..., Predictions]


@pytest.fixture
def runs(make_predictions: Make, tmp_path: Path) -> list[str]:
    predictions = make_predictions(1500)
    for index in range(4):
        run = tmp_path / f"run{index}"
        scored = noisy(predictions, 0.1 if index < 2 else 1.2, index)
        write_predictions(run / "evaluations" / "test" / "predictions.parquet", scored)
    return [str(tmp_path / f"run{index}") for index in range(4)]


def test_runs_are_compared_in_pairs(runs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    compare_runs(CompareOptions(runs=runs[1:3], out=str(out), num_replicates=50))
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison["baseline"] == runs[1]
    assert comparison["tasks"][0]["metrics"][0]["runs"][1]["verdict"] == "worse"


def test_groups_of_seeds_are_compared(runs: list[str], tmp_path: Path) -> None:
    options = CompareOptions(
        runs={"good": runs[:2], "bad": runs[2:]},
        baseline="bad",
        out=str(tmp_path / "out"),
        num_replicates=50,
    )
    compare_runs(options)
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["groups"] == {"good": runs[:2], "bad": runs[2:]}
    auc = comparison["tasks"][0]["metrics"][0]["groups"]
    assert {group["group"]: group["verdict"] for group in auc} == {"good": "better", "bad": None}


def test_what_cannot_be_compared_is_named(runs: list[str]) -> None:
    with pytest.raises(ValueError, match="has no predictions of split valid; run scripts/evaluate"):
        compare_runs(CompareOptions(runs=runs[:2], split="valid"))
    for bad, message in (
        ({"runs": runs[:1]}, "runs has 1 entries"),
        ({"runs": [runs[0], runs[0]]}, "twice"),
        ({"runs": {"a": [], "b": runs}}, r"runs\.a is empty"),
        ({"runs": runs, "baseline": "x"}, "baseline is 'x'; it must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            CompareOptions(**bad)
