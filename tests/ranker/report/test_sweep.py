import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ranker.report.compare import ComparisonContext
from ranker.report.groups import compare_groups, measure_run
from ranker.report.markdown import escape
from ranker.report.predictions import Predictions
from ranker.report.sweep import (
    SweepContext,
    SweptPoint,
    build_group_comparison,
    build_sweep_report,
    write_groups,
)
from tests.ranker.report.test_groups import noisy
from tests.ranker.report.test_html import HOSTILE, Page

Make = Callable[..., Predictions]

CONTEXT = SweepContext(
    name="first",
    objective="ctr.auc",
    pareto=["ctr.gauc", "ctr.logloss"],
    comparison=ComparisonContext(split="test", baseline="", num_replicates=50),
    fixed=["experiment=x"],
)


@pytest.fixture
def points(make_predictions: Make) -> list[SweptPoint]:
    predictions = make_predictions(1500)
    finished = [
        SweptPoint(
            name=f"{model}-{seed}",
            group=f"sequence={model}",
            values={"sequence": model, "seed": str(seed)},
            state="finished",
            reason="",
            seconds=1.5,
            measurement=measure_run(noisy(predictions, noise, seed), num_replicates=50, seed=0),
        )
        for model, noise in (("din", 0.1), ("pool", 1.2))
        for seed in range(2)
    ]
    failed = SweptPoint(
        name="broken",
        group="sequence=x",
        values={"sequence": "x", "seed": "0"},
        state="failed",
        reason="exit code 2: no such <encoder>",
        seconds=0.5,
    )
    return [*finished, failed]


def test_the_page_answers_which_is_better(points: list[SweptPoint], tmp_path: Path) -> None:
    report = build_sweep_report(points, CONTEXT)
    (line,) = report["summary"]
    assert line.startswith("ctr, auc: sequence=din has 0.")
    pool = report["tasks"][0]["metrics"][0]["groups"][1]["difference"]
    low, high = (abs(pool["interval"][end]) for end in ("high", "low"))
    assert f"sequence=pool is worse by {abs(pool['difference']):.4f} " in line
    assert f"(95% interval {low:.4f} to {high:.4f}, p " in line
    # one difference needs no correction
    assert "correction" not in line
    assert report["sweep"]["pareto"]["front"] == ["sequence=din"]
    assert report["sweep"]["explained"]["sequence"] > 0.9
    assert report["tasks"][0]["metrics"][0]["name"] == "auc"
    json_path, page_path = write_groups(tmp_path, "sweep", report)
    assert json.loads(json_path.read_text()) == report
    page = Page(page_path.read_text())
    assert line in page.text
    assert "exit code 2: no such <encoder>" in page.text
    assert not {"script", "link", "img"} & set(page.tags)
    text = (tmp_path / "sweep.md").read_text()
    assert "## ctr, AUC" in text
    assert escape("exit code 2: no such <encoder>") in text


def test_among_several_groups_p_is_corrected_too(points: list[SweptPoint]) -> None:
    third = [
        replace(point, name=f"{point.name}b", group="sequence=third")
        for point in points
        if point.group == "sequence=pool"
    ]
    report = build_sweep_report([*points, *third], CONTEXT)
    groups = report["tasks"][0]["metrics"][0]["groups"]
    first, second = (group["difference"] for group in groups[1:])
    assert first["p_adjusted"] == second["p_adjusted"] == min(2 * first["p_value"], 1)
    assert "after correction" in report["summary"][0]


def test_a_sweep_without_a_finished_point_says_what_failed(points: list[SweptPoint]) -> None:
    report = build_sweep_report(points[-1:], CONTEXT)
    assert report["tasks"] == []
    assert report["summary"] == []
    assert report["sweep"]["points"][0]["reason"].startswith("exit code 2")


def test_an_objective_that_nobody_predicts_is_named(points: list[SweptPoint]) -> None:
    with pytest.raises(ValueError, match=r"objective is 'cvr\.auc', but the points predict ctr"):
        build_sweep_report(points, replace(CONTEXT, objective="cvr.auc"))


def test_groups_of_runs_have_a_page(points: list[SweptPoint], tmp_path: Path) -> None:
    groups: dict[str, dict[str, Any]] = {}
    for point in points[:-1]:
        groups.setdefault(point.group, {})[point.name] = point.measurement
    context = replace(CONTEXT.comparison, baseline="sequence=pool")
    tasks = compare_groups(groups, context, reference=context.baseline)
    comparison = build_group_comparison(groups, tasks, context)
    text = Page(write_groups(tmp_path, "comparison", comparison)[1].read_text()).text
    assert "Comparison report" in text
    assert "baseline" in text
    assert "better" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(points: list[SweptPoint], tmp_path: Path, name: str) -> None:
    def page(text: str) -> Page:
        renamed = [
            replace(
                point,
                name=text,
                group=text + point.group,
                values={text: text, "seed": str(index)},
                reason=text,
            )
            for index, point in enumerate(points)
        ]
        context = replace(CONTEXT, name=text, fixed=[text])
        return Page(
            write_groups(tmp_path, "s", build_sweep_report(renamed, context))[1].read_text()
        )

    harmless, hostile = page("x"), page(name)
    assert hostile.tags == harmless.tags
    kinds = [(tag, attribute) for tag, attribute, _ in hostile.attributes]
    assert kinds == [(tag, attribute) for tag, attribute, _ in harmless.attributes]


def test_many_groups_are_counted_not_named(points: list[SweptPoint]) -> None:
    best, *_, worse, _ = points
    many = [
        replace(worse, name=f"p{i}", group=f"g{i}", values={**worse.values, "sequence": f"g{i}"})
        for i in range(5)
    ]
    report = build_sweep_report([best, *many], CONTEXT)
    (line,) = report["summary"]
    assert line.startswith("ctr, auc: sequence=din has 0.")
    assert line.endswith("(one run); 5 groups are worse.")
    order = [group["mean"] for group in report["tasks"][0]["metrics"][0]["groups"]]
    assert order == sorted(order, reverse=True)
