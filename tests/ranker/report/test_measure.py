from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ranker.metrics.evaluation import EvaluationRows, RowMetric
from ranker.metrics.lift import Lift
from ranker.metrics.roc import McClishAuc, PartialAuc
from ranker.metrics.top_k import HitRate, MeanReciprocalRank, Ndcg
from ranker.metrics.value import MetricValue
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
    }
    gauc = measured["metrics"]["gauc"]
    held |= {
        name: gauc[name]["interval"]["low"] < gauc[name]["value"] < gauc[name]["interval"]["high"]
        for name in ("uniform", "positive_weighted")
    }
    assert len(held) == len(ALL_METRICS) + 2
    assert all(held.values())


def test_further_metrics_have_intervals_too(make_predictions: Make) -> None:
    class Rows:
        """Knows nothing of users."""

        def __call__(self, rows: EvaluationRows) -> MetricValue:
            return MetricValue(value=1.0, rows=rows.count, positives=rows.positives)

    further: dict[str, RowMetric] = {
        "ndcg": Ndcg(k=3),
        "hits": HitRate(k=1),
        "mrr": MeanReciprocalRank(),
        "partial": PartialAuc(max_fpr=0.5, positive_fraction=0.8),
        "mcclish": McClishAuc(max_fpr=0.2),
        "lift": Lift(fraction=0.1),
        "rows": Rows(),
    }
    rows = replace(ctr_rows(make_predictions()), truth=None)
    # two requests a user
    rows = replace(rows, requests=2 * rows.users + np.arange(rows.count) % 2)
    more = measure(rows, CONTEXT, names=["auc"], further=further)["more"]
    assert "does not say how" in more.pop("rows")["interval"]["reason"]
    for name, metric in more.items():
        assert metric["value"] == further[name](rows).value
        interval = metric["interval"]
        assert interval["low"] < metric["value"] < interval["high"], name
    # a request of several users has no owner
    mixed = replace(rows, requests=np.arange(rows.count) // 5)
    reason = measure(mixed, CONTEXT, names=["auc"], further={"n": Ndcg(k=3)})["more"]["n"]
    assert "several users" in reason["interval"]["reason"]


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
