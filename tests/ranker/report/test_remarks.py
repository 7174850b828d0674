from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ranker.metrics.evaluation import EvaluationRows
from ranker.report.context import ReportContext, TaskContext
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.measure import ALL_METRICS, measure
from ranker.report.predictions import Predictions
from ranker.report.remarks import find_remarks

Make = Callable[..., Predictions]

CONTEXT = ReportContext(run="r", split="s", tasks=[TaskContext(name="ctr")], num_replicates=50)


def remarks(rows: EvaluationRows) -> list[str]:
    return find_remarks(rows, measure(rows, CONTEXT, names=ALL_METRICS)["metrics"])


def ctr_rows(predictions: Predictions) -> EvaluationRows:
    return task_rows(predictions, "ctr", evaluation_mask(predictions, "ctr"))


def test_a_sound_model_has_none(make_predictions: Make) -> None:
    assert remarks(ctr_rows(make_predictions())) == []


def test_collapse(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    constant = replace(
        rows, logits=np.full_like(rows.logits, -1), probabilities=np.full_like(rows.logits, 0.2689)
    )
    found = remarks(constant)
    assert found[0].startswith("Collapse: the predictions have 1 distinct value in 3,000 rows")
    assert "no better than" in found[1]


def test_an_auc_too_good_to_be_true(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    leaked = replace(rows, logits=(rows.labels * 8 - 4 + 0.1 * rows.logits).astype(np.float32))
    assert any("contains the label" in remark for remark in remarks(leaked))


def test_a_reversed_order(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    found = remarks(replace(rows, logits=-rows.logits))
    assert any(remark.startswith("The order is reversed") for remark in found)
    assert any("no better than" in remark for remark in found)


def test_a_gauc_of_few_rows(make_predictions: Make) -> None:
    rows = ctr_rows(make_predictions())
    found = remarks(replace(rows, groups=np.arange(rows.count) // 2, users=np.arange(rows.count)))
    assert any(remark.startswith("GAUC speaks for ") for remark in found)
