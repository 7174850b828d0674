from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ranker.report.compare import ComparisonContext, compare_predictions
from ranker.report.groups import RunMeasurement, compare_groups, measure_run
from ranker.report.predictions import Predictions

Make = Callable[..., Predictions]

CONTEXT = ComparisonContext(split="test", baseline="good 0", num_replicates=200)


def noisy(predictions: Predictions, noise: float, seed: int) -> Predictions:
    task = predictions.tasks["ctr"]
    drawn = np.random.default_rng(seed).normal(0, noise, predictions.rows)
    logit = (task.logit + drawn).astype(np.float32)
    chance = (1 / (1 + np.exp(-logit.astype(np.float64)))).astype(np.float32)
    return replace(predictions, tasks={"ctr": replace(task, logit=logit, probability=chance)})


def measured(runs: dict[str, Predictions]) -> dict[str, RunMeasurement]:
    return {n: measure_run(p, num_replicates=200, seed=0) for n, p in runs.items()}


@pytest.fixture
def runs(make_predictions: Make) -> dict[str, Predictions]:
    predictions = make_predictions()
    return {
        f"{name} {seed}": noisy(predictions, noise, seed)
        for name, noise in (("good", 0.1), ("bad", 1.0))
        for seed in range(3)
    }


def entries(task: Any, metric: str) -> Any:
    found = next(entry for entry in task["metrics"] if entry["name"] == metric)
    return found["best"], {group["group"]: group for group in found["groups"]}


def test_the_better_model_is_found_and_shown(runs: dict[str, Predictions]) -> None:
    found = measured(runs)
    groups = {
        name: {run: m for run, m in found.items() if run.startswith(name)}
        for name in ("good", "bad")
    }
    (task,) = compare_groups(groups, CONTEXT)
    for metric in ("auc", "gauc", "logloss", "normalized_entropy"):
        best, by_group = entries(task, metric)
        assert best == "good"
        assert by_group["bad"]["verdict"] == "worse"
        assert by_group["good"]["difference"] is None
        values = [run["value"] for run in by_group["good"]["runs"]]
        assert by_group["good"]["mean"] == pytest.approx(np.mean(values))
    _, by_group = entries(compare_groups(groups, CONTEXT, reference="bad")[0], "auc")
    assert by_group["good"]["verdict"] == "better"
    assert by_group["bad"]["difference"] is None


def test_single_runs_agree_with_the_pairwise_comparison(runs: dict[str, Predictions]) -> None:
    pair = {name: runs[name] for name in ("good 0", "bad 0")}
    groups = {name: measured({name: run}) for name, run in pair.items()}
    _, by_group = entries(compare_groups(groups, CONTEXT, reference="good 0")[0], "auc")
    direct = compare_predictions(pair, CONTEXT)["tasks"][0]["metrics"][0]["runs"][1]
    ours, theirs = by_group["bad 0"]["difference"], direct["difference"]
    assert ours["difference"] == pytest.approx(theirs["difference"], abs=1e-12)
    # percentiles of the same replicates against their standard deviation
    for end in ("low", "high"):
        assert ours["interval"][end] == pytest.approx(theirs["interval"][end], abs=2e-3)


def test_the_order_of_the_rows_does_not_matter(runs: dict[str, Predictions]) -> None:
    run = runs["good 0"]
    order = np.random.default_rng(0).permutation(run.rows)
    task = run.tasks["ctr"]
    shuffled = replace(
        run,
        **{
            name: getattr(run, name)[order]
            for name in ("sample_id", "user", "request", "group", "time", "domain", "weight")
        },
        tasks={
            "ctr": replace(
                task,
                label=task.label[order],
                logit=task.logit[order],
                probability=task.probability[order],
                truth=None,
            )
        },
        slices={},
    )
    one, other = measured({"a": run, "b": shuffled}).values()
    assert one.digest == other.digest
    assert one.tasks["ctr"].values == pytest.approx(other.tasks["ctr"].values)


def test_other_rows_are_refused(runs: dict[str, Predictions]) -> None:
    task = runs["good 1"].tasks["ctr"]
    flipped = task.label.copy()
    flipped[0] = 1 - flipped[0]
    other = replace(runs["good 1"], tasks={"ctr": replace(task, label=flipped)})
    found = measured({"one": runs["good 0"], "two": other})
    with pytest.raises(ValueError, match="two and one were not evaluated on the same rows"):
        compare_groups({name: {name: run} for name, run in found.items()}, CONTEXT)


def test_few_users_have_values_but_no_intervals(make_predictions: Make) -> None:
    few = replace(make_predictions(200), user=np.arange(200) % 5, group=np.arange(200) % 5)
    groups = {name: measured({name: noisy(few, noise, 0)}) for name, noise in (("a", 0), ("b", 1))}
    _, by_group = entries(compare_groups(groups, CONTEXT)[0], "auc")
    for group in by_group.values():
        assert group["mean"] is not None
        assert "users cannot be resampled" in group["interval"]["reason"]
