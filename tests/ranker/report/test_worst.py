from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ranker.metrics.auc import auc
from ranker.report.context import ReportContext, TaskContext
from ranker.report.predictions import Predictions
from ranker.report.slices import cut_slices
from ranker.report.worst import NUM_WORST, find_worst

Make = Callable[..., Predictions]

CONTEXT = ReportContext(run="r", split="s", tasks=[TaskContext(name="ctr")], num_replicates=100)


def worst(predictions: Predictions, overall: float | None = 0.8) -> Any:
    cuts = cut_slices(predictions, "ctr", CONTEXT)
    return find_worst(predictions, "ctr", cuts, overall, CONTEXT)


def test_a_planted_pair_is_found_first(make_predictions: Make) -> None:
    predictions = make_predictions(6000, num_domains=3)
    corner = predictions.sample_id % 4
    task = predictions.tasks["ctr"]
    bad = (predictions.domain == 2) & (corner == 1)
    logit = np.where(bad, -task.logit, task.logit).astype(np.float32)
    planted = replace(
        predictions,
        tasks={"ctr": replace(task, logit=logit)},
        slices={"corner": corner},
    )
    found = worst(planted)
    # 3 domains, 4 corners, 12 pairs
    assert found["candidates"] == 19
    first = found["slices"][0]
    assert first["slice"] == "domain 2 and corner 1"
    assert first["rows"] == bad.sum()
    assert first["below"]


def test_luck_is_called_luck(make_predictions: Make) -> None:
    predictions = make_predictions(6000)
    task = predictions.tasks["ctr"]
    whole = float(auc(task.logit, task.label))
    noise = np.random.default_rng(0).integers(0, 10, size=6000)
    found = worst(replace(predictions, slices={"noise": noise}), overall=whole)
    assert 0 < len(found["slices"]) <= NUM_WORST
    assert not any(entry["below"] for entry in found["slices"])


def test_nothing_below_an_undefined_or_low_auc(make_predictions: Make) -> None:
    assert worst(make_predictions(), None)["slices"] == []
    assert worst(make_predictions(), 0.1)["slices"] == []


def test_small_slices_are_no_candidates(make_predictions: Make) -> None:
    predictions = make_predictions(400, num_domains=40)
    assert worst(replace(predictions, slices={}))["candidates"] <= 1
