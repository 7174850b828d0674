import pytest

from ranker.report.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Area,
    Chart,
    Line,
    horizontal,
    polyline,
    steps,
    vertical,
)


def test_linear_scale_clamps() -> None:
    x, y = horizontal(0, 10), vertical(0, 10)
    assert [x(0), x(10), x(-5), x(50)] == [LEFT, RIGHT, LEFT, RIGHT]
    assert [y(0), y(10)] == [BOTTOM, TOP]
    assert x(5) == (LEFT + RIGHT) / 2


def test_log_scale() -> None:
    x = horizontal(0.001, 0.1, log=True)
    assert x(0.01) == (LEFT + RIGHT) / 2
    assert [tick.label for tick in x.ticks()] == [
        "0.001",
        "0.002",
        "0.005",
        "0.01",
        "0.02",
        "0.05",
        "0.1",
    ]
    assert [t.label for t in horizontal(1e-5, 1, log=True).ticks()][:2] == ["1e-05", "0.0001"]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-3.2, 3.9, ["-2", "0", "2"]),
        (0, 50_000, ["0", "10k", "20k", "30k", "40k", "50k"]),
        (0.1234, 0.1239, ["0.1234", "0.1235", "0.1236", "0.1237", "0.1238", "0.1239"]),
        (5, 5, ["4.6", "4.8", "5.0", "5.2", "5.4"]),
    ],
)
def test_ticks_are_round(low: float, high: float, labels: list[str]) -> None:
    assert [tick.label for tick in horizontal(low, high).ticks()] == labels


def test_paths() -> None:
    assert polyline([(1.0, 2.5), (3.25, 4.0)]) == "M1,2.5L3.25,4"
    x, y = horizontal(0, 2), vertical(0, 1)
    middle = (LEFT + RIGHT) / 2
    assert (
        steps([0, 1, 2], [1.0, 0.0], x, y)
        == polyline(
            [
                (LEFT, BOTTOM),
                (LEFT, TOP),
                (middle, TOP),
                (middle, BOTTOM),
                (RIGHT, BOTTOM),
                (RIGHT, BOTTOM),
            ]
        )
        + "Z"
    )


def test_only_named_marks_are_in_the_legend() -> None:
    named = Line(path="M0,0", color="one", name="a")
    area = Area(path="M0,0Z", color="two", name="b")
    chart = Chart(
        title="t",
        caption="c",
        x_label="",
        y_label="",
        x_ticks=[],
        y_ticks=[],
        lines=[Line(path="M0,0", color="guide"), named],
        areas=[area],
    )
    assert chart.legend == [named, area]
