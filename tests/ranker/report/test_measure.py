from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ranker.metrics.evaluation import EvaluationRows
from ranker.report.context import ReportContext, TaskContext
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.measure import ALL_METRICS, SLICE_METRICS, measure
from ranker.report.predictions import Predictions

Make = Callable[..., Predictions]

CONTEXT = ReportContext(run="r", split="s", tasks=[TaskContext(name="ctr")], num_replicates=200)


def ctr_rows(predictions: Predictions) -> EvaluationRows:
    return task_rows(predictions, "ctr", evaluation_mask(predictions, "ctr"))


@pytest.mark.parametrize("weighted", [False, True])
def test_intervals_hold_their_values(make_predictions: Make, weighted: bool) -> None:
    measured = measure(ctr_rows(make_predictions(weighted=weighted)), CONTEXT, names=ALL_METRICS)
    held = {
        name: metric["interval"]["low"] < metric["value"] < metric["interval"]["high"]
        for name, metric in measured["metrics"].items()
        if metric["interval"] is not None
    }
    assert len(held) == 7
    assert all(held.values())


def test_gain_and_entropy_mirror_each_other(make_predictions: Make) -> None:
    metrics = measure(ctr_rows(make_predictions()), CONTEXT, names=ALL_METRICS)["metrics"]
    entropy, gain = metrics["normalized_entropy"], metrics["relative_information_gain"]
    assert gain["value"] == pytest.approx(1 - entropy["value"])
    assert gain["interval"]["low"] == pytest.approx(1 - entropy["interval"]["high"])


def test_only_the_names_asked_for(make_predictions: Make) -> None:
    measured = measure(ctr_rows(make_predictions()), CONTEXT, names=SLICE_METRICS)
    assert set(measured["metrics"]) == set(SLICE_METRICS)
    entropy_only = measure(ctr_rows(make_predictions()), CONTEXT, names=["normalized_entropy"])
    assert set(entropy_only["metrics"]) == {"normalized_entropy"}
    assert entropy_only["bayes"] == {}


def test_the_truth_itself_has_no_gap(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    assert rows.truth is not None
    perfect = replace(rows, logits=np.log(rows.truth / (1 - rows.truth)))
    gap = measure(perfect, CONTEXT, names=ALL_METRICS)["bayes"]["auc"]["gap"]
    assert gap["difference"] == pytest.approx(0.0, abs=1e-12)
    assert gap["p_value"] == 1.0


def test_few_users_have_no_interval(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    few = replace(rows, users=rows.users % 5, groups=rows.users % 5)
    auc = measure(few, CONTEXT, names=["auc"])["metrics"]["auc"]
    assert auc["interval"]["reason"] == "5 users are too few to resample (at least 10)"
    assert auc["delong"]["low"] < auc["value"]
