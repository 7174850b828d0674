"""Parallel coordinates: one line per point of a sweep through the values of its keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ranker.report.charts import Scale, Tick, polyline
from ranker.report.importance import as_numbers

PLOT_HEIGHT, PLOT_TOP, PLOT_BOTTOM = 260, 34, 244
AXIS_GAP, PLOT_LEFT = 170, 90

# numbers that span more than this factor get a logarithmic axis
LOG_SPAN = 20


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A vertical axis at `x` pixels."""

    x: float
    title: str
    ticks: Sequence[Tick]


@dataclass(frozen=True, kw_only=True)
class Strand:
    """The line of one point; `best` stands out."""

    path: str
    name: str
    best: bool


@dataclass(frozen=True, kw_only=True)
class ParallelPlot:
    """Everything that is drawn, in pixels."""

    width: int
    height: int
    axes: Sequence[Axis]
    strands: Sequence[Strand]


def parallel_plot(
    points: Sequence[Mapping[str, str]], objective: Sequence[float], title: str, best: int
) -> ParallelPlot:
    """Axes for every key, the objective last.

    Args:
        points: P points, each a value per key.
        objective: [P].
        title: of the objective.
        best: index of the point to stand out; it is drawn last.
    """
    keys = list(points[0])
    columns = [_column([point[key] for point in points]) for key in keys]
    columns.append(_numbers(list(objective), digits=5))
    axes, heights = [], []
    for number, (name, (ticks, positions)) in enumerate(zip([*keys, title], columns, strict=True)):
        axes.append(Axis(x=PLOT_LEFT + number * AXIS_GAP, title=name, ticks=ticks))
        heights.append(positions)
    order = sorted(range(len(points)), key=lambda index: index == best)
    return ParallelPlot(
        width=PLOT_LEFT * 2 + AXIS_GAP * (len(axes) - 1),
        height=PLOT_HEIGHT,
        axes=axes,
        strands=[
            Strand(
                path=polyline(
                    [(axis.x, height[index]) for axis, height in zip(axes, heights, strict=True)]
                ),
                name=", ".join(f"{key}={value}" for key, value in points[index].items()),
                best=index == best,
            )
            for index in order
        ],
    )


def _column(texts: Sequence[str]) -> tuple[list[Tick], list[float]]:
    numbers = as_numbers(texts)
    if numbers is not None:
        return _numbers(numbers)
    levels = sorted(set(texts))
    step = (PLOT_BOTTOM - PLOT_TOP) / max(len(levels) - 1, 1)
    place = {level: round(PLOT_BOTTOM - index * step, 2) for index, level in enumerate(levels)}
    if len(levels) == 1:
        place[levels[0]] = (PLOT_TOP + PLOT_BOTTOM) / 2
    ticks = [Tick(position=place[level], label=level) for level in levels]
    return ticks, [place[text] for text in texts]


def _numbers(values: list[float], digits: int = 4) -> tuple[list[Tick], list[float]]:
    low, high = min(values), max(values)
    log = low > 0 and high > LOG_SPAN * low
    if low == high:
        low, high = low - 0.5, high + 0.5
        log = False
    scale = Scale(low=low, high=high, start=PLOT_BOTTOM, end=PLOT_TOP, log=log)
    few = sorted(set(values))
    # the values themselves while they are few, else the ends
    shown = few if len(few) <= 4 else [few[0], few[-1]]
    ticks = [Tick(position=scale(value), label=f"{value:.{digits}g}") for value in shown]
    return ticks, [scale(value) for value in values]
