import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ranker.report.compare import ComparisonContext, compare_predictions, write_comparison
from ranker.report.compared import COMPARED
from ranker.report.predictions import Predictions

Make = Callable[..., Predictions]
Json = dict[str, Any]

CONTEXT = ComparisonContext(split="test", baseline="base", num_replicates=100)


def with_noise(predictions: Predictions, spread: float, seed: int = 0) -> Predictions:
    """The same samples in another order, scored by a model that is worse by `spread`."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(predictions.rows)
    task = predictions.tasks["ctr"]
    logit = (task.logit + spread * generator.normal(size=predictions.rows)).astype(np.float32)
    probability = (1 / (1 + np.exp(-logit.astype(np.float64)))).astype(np.float32)
    names = ("sample_id", "user", "request", "group", "time", "domain", "weight")
    return replace(
        predictions,
        **{name: getattr(predictions, name)[order] for name in names},
        tasks={
            "ctr": replace(
                task,
                label=task.label[order],
                logit=logit[order],
                probability=probability[order],
                truth=None if task.truth is None else task.truth[order],
            )
        },
        slices={},
    )


def metric(comparison: Json, name: str) -> dict[str, Json]:
    found = next(entry for entry in comparison["tasks"][0]["metrics"] if entry["name"] == name)
    return {run["run"]: run for run in found["runs"]}


def test_a_worse_model_is_found_and_a_twin_is_not(make_predictions: Make) -> None:
    base = make_predictions()
    comparison = compare_predictions(
        {"worse": with_noise(base, 2.0), "base": base, "twin": with_noise(base, 0.0, seed=1)},
        CONTEXT,
    )
    assert comparison["runs"] == ["base", "worse", "twin"]
    assert [task["name"] for task in comparison["tasks"]] == ["ctr"]
    for name in COMPARED:
        runs = metric(comparison, name)
        assert runs["base"]["difference"] is None
        assert runs["worse"]["verdict"] == "worse"
        assert runs["worse"]["difference"]["p_value"] == pytest.approx(2 / 101, rel=0.1)
        assert runs["twin"]["verdict"] == "no difference shown"
        assert runs["twin"]["difference"]["difference"] == pytest.approx(0.0, abs=1e-12)
    reversed_roles = compare_predictions({"base": with_noise(base, 2.0), "better": base}, CONTEXT)
    assert all(metric(reversed_roles, name)["better"]["verdict"] == "better" for name in COMPARED)


def test_values_do_not_depend_on_the_row_order(make_predictions: Make) -> None:
    base = make_predictions()
    other = with_noise(base, 1.0)
    auc = metric(compare_predictions({"base": base, "other": other}, CONTEXT), "auc")
    task = other.tasks["ctr"]
    expected = roc_auc_score(task.label, task.logit)
    assert auc["other"]["value"] == pytest.approx(expected, abs=1e-12)
    difference = auc["other"]["value"] - auc["base"]["value"]
    assert auc["other"]["difference"]["difference"] == pytest.approx(difference)
    assert auc["other"]["relative_improvement"] == pytest.approx(
        (auc["other"]["value"] - 0.5) / (auc["base"]["value"] - 0.5) - 1
    )
    swapped = compare_predictions({"other": other, "base": base}, CONTEXT)
    assert metric(swapped, "auc") == auc


def test_pairing_narrows_the_interval(make_predictions: Make) -> None:
    base = make_predictions()
    comparison = compare_predictions({"base": base, "near": with_noise(base, 0.2)}, CONTEXT)
    near = metric(comparison, "auc")["near"]
    alone = near["interval"]["high"] - near["interval"]["low"]
    paired = near["difference"]["interval"]
    assert paired["high"] - paired["low"] < 0.6 * alone


def test_undefined_metrics_have_no_difference(make_predictions: Make) -> None:
    base = make_predictions()
    task = base.tasks["ctr"]
    negative = replace(base, tasks={"ctr": replace(task, label=np.zeros_like(task.label))})
    comparison = compare_predictions({"base": negative, "b": negative}, CONTEXT)
    auc = metric(comparison, "auc")["b"]
    assert (auc["value"], auc["difference"], auc["verdict"]) == (None, None, None)
    assert auc["reason"] == "no positives in 3,000 rows"
    assert metric(comparison, "logloss")["b"]["verdict"] == "no difference shown"


def test_groups_across_users_are_compared_without_an_interval(make_predictions: Make) -> None:
    base = make_predictions()
    base = replace(base, group=base.domain)
    gauc = metric(compare_predictions({"base": base, "b": with_noise(base, 1.0)}, CONTEXT), "gauc")
    assert gauc["b"]["difference"]["difference"] < 0
    assert gauc["b"]["difference"]["p_value"] is None
    assert "several users" in gauc["b"]["difference"]["interval"]["reason"]
    assert gauc["b"]["verdict"] is None


def other_rows(base: Predictions, change: str) -> Predictions:
    if change == "samples":
        return replace(base, sample_id=base.sample_id + 10)
    if change == "user":
        return replace(base, user=base.user + 1)
    task = base.tasks["ctr"]
    if change == "label":
        label = task.label.copy()
        label[7] = 1 - label[7]
        return replace(base, tasks={"ctr": replace(task, label=label)})
    assert change == "task"
    return replace(base, tasks={"other": task})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("samples", "base has 200 samples and b has 200, of which 190 are shared"),
        ("user", "differ in user at sample_id 0"),
        ("label", r"differ in label_ctr at sample_id 7 \(.*\), 1 rows in all"),
        ("task", "share no task"),
    ],
)
def test_refuses_runs_on_other_rows(make_predictions: Make, change: str, message: str) -> None:
    base = make_predictions(200)
    with pytest.raises(ValueError, match=message):
        compare_predictions({"base": base, "b": other_rows(base, change)}, CONTEXT)


def test_needs_a_baseline_and_another_run(make_predictions: Make) -> None:
    base = make_predictions(200)
    for runs in ({"base": base}, {"a": base, "b": base}, {}):
        with pytest.raises(ValueError, match="baseline base must be one of at least two runs"):
            compare_predictions(runs, CONTEXT)


def test_written_files(make_predictions: Make, tmp_path: Path) -> None:
    base = make_predictions(400)
    hostile = "<script>alert(1)</script>"
    comparison = compare_predictions({"base": base, hostile: with_noise(base, 1.0)}, CONTEXT)
    json_path, html_path = write_comparison(tmp_path, comparison)
    assert json.loads(json_path.read_text()) == comparison
    page = html_path.read_text()
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(page)
    assert "script" not in tags
    assert tags.count("section") == 1
    assert tags.count("table") == len(COMPARED)
    assert "default-src 'none'" in page
