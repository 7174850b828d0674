from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ranker.metrics.auc import auc
from ranker.report.context import ReportContext, TaskContext
from ranker.report.entire_space import build_entire_space, expected_rows
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.html import render_html
from ranker.report.markdown import render_markdown
from ranker.report.predictions import Predictions
from ranker.report.report import build_report

Make = Callable[..., Predictions]

CONTEXT = ReportContext(run="r", split="s", tasks=[TaskContext(name="cvr")], num_replicates=20)


@pytest.fixture
def simulated(make_predictions: Make) -> Predictions:
    """Conversions whose probability is known on every row, clicked or not."""
    predictions = make_predictions(4000)
    cvr = predictions.tasks["cvr"]
    truth = 1 / (1 + np.exp(-cvr.logit.astype(np.float64) + 0.5))
    return replace(predictions, tasks={**predictions.tasks, "cvr": replace(cvr, truth=truth)})


def test_expectation_is_the_mean_over_drawn_labels(simulated: Predictions) -> None:
    every = np.ones(simulated.rows, dtype=bool)
    rows = expected_rows(task_rows(simulated, "cvr", every))
    truth = simulated.tasks["cvr"].truth
    assert truth is not None
    expected = float(auc(rows.logits, rows.labels, rows.weights))
    generator = np.random.default_rng(0)
    drawn = [
        float(auc(simulated.tasks["cvr"].logit, generator.random(simulated.rows) < truth))
        for _ in range(60)
    ]
    assert expected == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(60))


def test_all_rows_and_the_labelled_ones(simulated: Predictions) -> None:
    found: Any = build_entire_space(simulated, "cvr", CONTEXT)
    assert found["all_rows"]["rows"] == simulated.rows
    assert found["labelled_rows"]["rows"] == evaluation_mask(simulated, "cvr").sum()
    chance, truth = simulated.tasks["cvr"].probability, simulated.tasks["cvr"].truth
    assert truth is not None
    pcoc = found["all_rows"]["metrics"]["pcoc"]
    assert pcoc["value"] == pytest.approx(chance.sum() / truth.sum(), rel=1e-5)
    assert pcoc["interval"]["low"] < pcoc["value"] < pcoc["interval"]["high"]
    assert "delong" not in found["all_rows"]["metrics"]["auc"]


def test_only_where_the_truth_is_known_and_labels_are_missing(
    make_predictions: Make, simulated: Predictions
) -> None:
    assert build_entire_space(make_predictions(), "cvr", CONTEXT) is None
    assert build_entire_space(simulated, "ctr", CONTEXT) is None


def test_report_and_markdown_show_it(simulated: Predictions) -> None:
    report = build_report(simulated, CONTEXT)
    value = report["tasks"][0]["entire_space"]["all_rows"]["metrics"]["auc"]["value"]
    for text in (render_html(report), render_markdown(report)):
        section = text.split("On all rows, labelled or not")[1].split("All metrics")[0]
        assert f"{value:.4f}" in section
        assert "labelled rows" in section
