from typing import Any

from ranker.report.charts import BOTTOM, LEFT, RIGHT, TOP
from ranker.report.figures import task_figures, training_figures

ROC = {"false_positive_rate": [0.0, 0.5, 1.0], "true_positive_rate": [0.0, 0.9, 1.0]}
CALIBRATION: dict[str, Any] = {
    "predicted": [0.1, 0.2],
    "observed": [0.12, 0.18],
    "weight": [0.5, 0.5],
    "rows": [10, 10],
    "low": [0.05, 0.1],
    "high": [0.2, 0.3],
}
HISTOGRAM = {"edges": [-1.0, 0.0, 1.0], "positive": [0.4, 0.6], "negative": [0.7, 0.3]}


def figures(**curves: Any) -> dict[str, Any]:
    given = {"roc": None, "precision_recall": None, "calibration": None, "histogram": None} | curves
    return {chart.title: chart for chart in task_figures({"curves": given})}


def test_draws_what_is_there() -> None:
    assert figures() == {}
    drawn = figures(roc=ROC, calibration=CALIBRATION, histogram=HISTOGRAM)
    assert list(drawn) == ["ROC", "Calibration", "Scores"]
    assert drawn["ROC"].lines[1].path.startswith(f"M{LEFT},{BOTTOM}L")
    assert drawn["ROC"].lines[1].path.endswith(f"L{RIGHT},{TOP}")
    assert [mark.name for mark in drawn["Scores"].legend] == ["negatives", "positives"]


def test_histogram_of_one_class() -> None:
    drawn = figures(histogram=HISTOGRAM | {"positive": None})
    assert [mark.name for mark in drawn["Scores"].legend] == ["negatives"]


def test_calibration_axis_is_logarithmic_when_bins_span_decades() -> None:
    linear = figures(calibration=CALIBRATION)["Calibration"]
    assert linear.x_label == "mean prediction"
    assert linear.x_ticks[0].label == "0.0"
    assert linear.dots[0].low is not None
    wide = CALIBRATION | {"predicted": [0.001, 0.2], "observed": [0.0, 0.18]}
    log = figures(calibration=wide)["Calibration"]
    assert log.x_label == "mean prediction (log scale)"
    # a rate of zero has no logarithm: it sits on the lower edge
    assert log.dots[0].y == BOTTOM
    weighted = figures(calibration=CALIBRATION | {"low": None, "high": None})["Calibration"]
    assert weighted.dots[0].low is None
    assert "Wilson" not in weighted.caption


def test_calibration_of_zero_rates_still_draws() -> None:
    none = CALIBRATION | {"predicted": [0.0], "observed": [0.0], "low": None, "high": None}
    assert len(figures(calibration=none)["Calibration"].dots) == 1


def test_training_curves_are_lines_with_names() -> None:
    many = [[float(step), 1 / step] for step in range(1, 200)]
    few = [[1000.0, 0.5], [2000.0, 0.4]]
    training = {"loss": {"train loss": many, "valid loss": few}, "auc": {"valid ctr.auc": few}}
    loss, auc = training_figures(training)
    assert (loss.title, auc.title) == ("Loss", "AUC while training")
    assert [line.name for line in loss.lines] == ["train loss", "valid loss"]
    assert loss.lines[0].path.count("L") == len(many) - 1
    # only the few points are marked
    assert len(loss.dots) == 2
    assert training_figures({}) == []


def test_every_line_is_drawn_however_many() -> None:
    lines = {f"valid task_{index}.auc": [[1.0, 0.1 * index]] for index in range(9)}
    chart = training_figures({"auc": lines})[0]
    assert len(chart.lines) == 9
    assert chart.lines[0].color == chart.lines[6].color != chart.lines[1].color
