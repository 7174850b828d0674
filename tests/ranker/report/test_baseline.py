from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ranker.report.baseline import Baseline, build_baseline, config_changes
from ranker.report.compare import ComparisonContext
from ranker.report.predictions import Predictions

Make = Callable[..., Predictions]

CONTEXT = ComparisonContext(split="test", baseline="old", num_replicates=100)


def worse(predictions: Predictions) -> Predictions:
    task = predictions.tasks["ctr"]
    noise = np.random.default_rng(1).normal(0, 2, predictions.rows).astype(np.float32)
    noisy = replace(task, logit=task.logit + noise)
    return replace(predictions, tasks={**predictions.tasks, "ctr": noisy})


def test_differences_in_words(make_predictions: Make) -> None:
    predictions = make_predictions()
    baseline = Baseline(run="old", predictions=worse(predictions), changes={"b": ("1", "2")})
    found = build_baseline(predictions, baseline, run="new", context=CONTEXT)
    auc = found["tasks"][0]["metrics"][0]["runs"][1]
    assert auc["run"] == "new"
    assert auc["verdict"] == "better"
    assert found["changes"] == [["b", "1", "2"]]
    first, _ = found["summary"].split("; ", 1)
    low, high = auc["difference"]["interval"]["low"], auc["difference"]["interval"]["high"]
    assert first == (
        f"ctr: AUC +{auc['difference']['difference']:.4f} (+{low:.4f} to +{high:.4f}), better"
    )
    assert "cvr: AUC +0.0000 (+0.0000 to +0.0000), no difference shown" in found["summary"]


def test_other_rows_cannot_be_a_baseline(make_predictions: Make) -> None:
    baseline = Baseline(run="old", predictions=make_predictions(600))
    with pytest.raises(ValueError, match="old has 600 samples and new has 3,000"):
        build_baseline(make_predictions(), baseline, run="new", context=CONTEXT)


def test_settings_that_differ() -> None:
    there = {"lr": 0.1, "name": "a", "gone": 1, "same": "x"}
    here = {"lr": 0.2, "name": "b", "new": True, "same": "x"}
    assert config_changes(there, here) == {
        "gone": ("1", "absent"),
        "lr": ("0.1", "0.2"),
        "new": ("absent", "True"),
    }
