from typing import Any

from ranker.report.sweep_figures import pareto_figure, sweep_plot


def report(objective: str, *values: float | None) -> Any:
    points = [{"values": {"a": str(i)}, "objective": v} for i, v in enumerate(values)]
    return {"sweep": {"objective": objective, "points": points}}


def test_best_follows_the_direction_of_the_metric() -> None:
    for objective, name in (("ctr.auc", "a=1"), ("ctr.logloss", "a=0")):
        plot = sweep_plot(report(objective, 0.1, 0.9, None))
        assert plot is not None
        assert [strand.name for strand in plot.strands if strand.best] == [name]
        assert len(plot.strands) == 2


def test_one_point_is_no_plot() -> None:
    assert sweep_plot(report("ctr.auc", 0.5, None)) is None
    assert pareto_figure({"metrics": ["a", "b"], "groups": {"x": [1, 2]}, "front": ["x"]}) is None


def test_front_is_drawn_in_the_first_colour() -> None:
    groups = {"x": [0.7, 0.5], "y": [0.6, 0.6]}
    figure = pareto_figure({"metrics": ["t.auc", "t.logloss"], "groups": groups, "front": ["x"]})
    assert figure is not None
    assert [dot.color for dot in figure.dots] == ["one", "two"]
