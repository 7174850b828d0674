from xml.etree import ElementTree

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from scripts.claims_multitask import (
    build_methods,
    height_over,
    mean_over_seeds,
    render_heights,
    render_table,
)
from scripts.measured_runs import CONFIGS, render_interval
from scripts.pareto_svg import draw_pareto

TASKS = ["ctr", "like", "long_view"]


@pytest.mark.parametrize(
    "method",
    ["single ctr", "static 0.8", "nash_mtl", "dwa", "like > ctr", "ctr > like > long_view"],
)
def test_a_method_composes(method: str) -> None:
    overrides = build_methods(TASKS, epochs=1)[method]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", ["experiment=claims/multitask", "name=x", *overrides])
    tasks = config.head.towers.predict
    if method.startswith("single"):
        assert tasks == ["ctr"]
        assert config.objective._target_.endswith("BCE")
    else:
        assert list(config.objective.get("priority") or config.objective.tasks) == tasks


def test_differences_to_the_single_task_are_paired() -> None:
    results = {
        "single ctr|w|1": {"ctr auc": 0.7},
        "single ctr|w|2": {"ctr auc": 0.8},
        "ctr > like|w|1": {"ctr auc": 0.71, "like auc": 0.6},
        "ctr > like|w|2": {"ctr auc": 0.81, "like auc": 0.5},
    }
    methods = ["single ctr", "ctr > like"]
    table = render_table(results, methods, "w", [1, 2], ["ctr", "like"])
    assert "| single ctr | 0.7500 |  |" in table
    assert "| ctr > like | 0.7600 (+0.0100 [+0.0100, +0.0100]) | 0.5500 |" in table
    means = mean_over_seeds(results, methods, "w", [1, 2], ["ctr", "like"])
    assert means["ctr > like"] == pytest.approx((0.76, 0.55))
    assert list(means) == ["ctr > like"]


def test_a_point_is_measured_against_the_joined_front() -> None:
    # the point at (0.7, 0.5) is not on the front
    sweep = [(0.6, 0.8), (0.8, 0.6), (0.7, 0.5)]
    assert height_over(sweep, (0.7, 0.72)) == pytest.approx(0.02)
    assert height_over(sweep, (0.9, 0.6)) == pytest.approx(0.0)
    assert height_over(sweep, (0.5, 0.7)) == pytest.approx(-0.1)


def test_heights_are_of_methods_that_predict_both() -> None:
    runs = {"static 0.2": (0.6, 0.8), "static 0.9": (0.8, 0.6), "ctr > like": (0.7, 0.71)}
    results = {f"{name}|w|1": {"ctr auc": a, "like auc": b} for name, (a, b) in runs.items()}
    results["single ctr|w|1"] = {"ctr auc": 0.8}
    lines = render_heights(results, ["single ctr", *runs], "w", [1], ["ctr", "like"])
    assert lines.splitlines() == [
        "ctr > like: like AUC over the front of static weights at equal ctr AUC +0.0100"
    ]


def test_the_interval_is_student_s() -> None:
    # mean 2, error 1 / sqrt(3), quantile 4.303 with two degrees of freedom
    assert render_interval(np.array([1.0, 2.0, 3.0])) == "+2.0000 [-0.4841, +4.4841]"


def test_the_figure_joins_the_front_of_the_sweep() -> None:
    points = {
        "static 0.2": (0.6, 0.8),
        "static 0.5": (0.7, 0.7),
        "static 0.7": (0.65, 0.65),
        "ctr > like": (0.72, 0.72),
    }
    figure = ElementTree.fromstring(draw_pareto(points, ["ctr", "like"]))  # noqa: S314
    name = "{http://www.w3.org/2000/svg}"
    assert len(figure.findall(f"{name}circle")) == 4
    sweep = next(path for path in figure.findall(f"{name}path") if path.get("class") == "sweep")
    # the point below the front is left out
    assert (sweep.get("d") or "").count(",") == 2
