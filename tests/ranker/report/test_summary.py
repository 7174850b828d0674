from typing import Any

from ranker.report.summary import summarize_task


def task(**changes: Any) -> dict[str, Any]:
    metrics = {
        "auc": {"value": 0.75, "interval": {"low": 0.74, "high": 0.76, "level": 0.95}},
        "gauc": {"value": 0.7},
        "pcoc": {"value": 1.1},
    }
    return {"metrics": metrics | changes, "bayes": None}


def test_plain_words() -> None:
    assert summarize_task(task()) == (
        "A positive row outranks a negative one 75.0% of the time (AUC 0.7500, 95% interval 0.7400 "
        "to 0.7600), 70.0% within a group; predictions add up to 1.10 times the observed positives."
    )


def test_leaves_out_what_is_not_defined() -> None:
    bare = task(auc={"value": 0.75, "interval": None}, gauc={"value": None}, pcoc={"value": None})
    assert summarize_task(bare) == (
        "A positive row outranks a negative one 75.0% of the time (AUC 0.7500)."
    )
    few = {"value": 0.75, "interval": {"low": None, "high": None, "level": 0.95}}
    assert "interval" not in summarize_task(task(auc=few))
    none = summarize_task(task(auc={"value": None, "reason": "no rows"}))
    assert none == "No AUC: no rows."


def test_tells_how_far_the_best_is() -> None:
    known = task() | {"bayes": {"auc": {"value": 0.8, "gap": {"difference": 0.05}}}}
    assert summarize_task(known).endswith("; the true probabilities would reach 0.8000.")
