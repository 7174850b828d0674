from typing import Any

from ranker.report.forest import FOREST_WIDTH, forests


def run(name: str, low: float | None, value: float = 0.0) -> dict[str, Any]:
    high = None if low is None else 2 * value - low
    interval = {"low": low, "high": high}
    return {"run": name, "difference": {"difference": value, "interval": interval}}


def test_whiskers_share_one_scale_that_holds_zero() -> None:
    base = {"run": "base", "difference": None}
    runs = [base, run("a", 0.01, 0.02), run("b", 0.02, 0.03), run("c", None)]
    forest = forests({"metrics": [{"name": "auc", "runs": runs}]})[0]
    assert forest.title == "AUC"
    whiskers = {entry["run"]: whisker for entry, whisker in forest.runs}
    assert whiskers["base"] is None
    assert whiskers["c"] is None
    first, second = whiskers["a"], whiskers["b"]
    assert first is not None
    assert second is not None
    assert first.zero == second.zero == 0.0
    assert second.high == FOREST_WIDTH
    assert first.value == second.low
    assert first.low < first.value < first.high


def test_no_differences_at_all() -> None:
    forest = forests({"metrics": [{"name": "gauc", "runs": [run("a", 0.0, 0.0)]}]})[0]
    whisker = forest.runs[0][1]
    assert whisker is not None
    assert (whisker.low, whisker.value, whisker.high) == (0.0, 0.0, 0.0)
