from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ranker.report.context import ReportContext, TaskContext
from ranker.report.correction import correct_sampling
from ranker.report.predictions import Predictions
from ranker.report.report import build_report

Make = Callable[..., Predictions]


def test_the_correction_is_that_of_the_paper(make_predictions: Make) -> None:
    predictions = make_predictions()
    found = correct_sampling(predictions, {"ctr": 0.1})
    sampled = predictions.tasks["ctr"].probability.astype(np.float64)
    expected = sampled / (sampled + (1 - sampled) / 0.1)
    np.testing.assert_allclose(found.tasks["ctr"].probability, expected, rtol=1e-5)
    assert found.tasks["cvr"] is predictions.tasks["cvr"]


def test_a_report_corrects_calibration_and_keeps_the_order(make_predictions: Make) -> None:
    predictions = make_predictions(8000)
    task = predictions.tasks["ctr"]
    # a model that learned from a fifth of the negatives promises too much
    logit = (task.logit - np.log(0.2)).astype(np.float32)
    chance = (1 / (1 + np.exp(-logit.astype(np.float64)))).astype(np.float32)
    skewed = replace(predictions, tasks={"ctr": replace(task, logit=logit, probability=chance)})
    context = ReportContext(run="r", split="s", tasks=[TaskContext(name="ctr")], num_replicates=10)
    plain = build_report(skewed, context)["tasks"][0]
    corrected = build_report(skewed, replace(context, negative_sampling_rates={"ctr": 0.2}))
    task_json = corrected["tasks"][0]
    assert plain["metrics"]["pcoc"]["value"] > 1.5
    assert task_json["metrics"]["pcoc"]["value"] == pytest.approx(1, abs=0.1)
    for name in ("auc", "gauc"):
        assert task_json["metrics"][name]["value"] == pytest.approx(
            plain["metrics"][name]["value"], abs=1e-4
        )
    assert task_json["negative_sampling_rate"] == 0.2


@pytest.mark.parametrize(
    ("rates", "message"),
    [({"ctx": 0.5}, "the task 'ctx'; the predictions have ctr, cvr"), ({"ctr": 0}, r"ctr is 0")],
)
def test_bad_rates_are_named(make_predictions: Make, rates: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        correct_sampling(make_predictions(), rates)
