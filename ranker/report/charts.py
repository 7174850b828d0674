"""Chart geometry: data to coordinates of an inline SVG, which the templates only draw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 340, 268
LEFT, RIGHT, TOP, BOTTOM = 60, 330, 10, 222


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A labelled position on an axis, in pixels."""

    position: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A range of data laid over a range of pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value; values outside are drawn at the edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self) -> list[Tick]:
        """Round numbers inside the range."""
        if self.log:
            values = _log_ticks(self.low, self.high)
            return [Tick(position=self(value), label=f"{value:.4g}") for value in values]
        step = _tick_step(self.low, self.high)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [
            Tick(position=self(index * step), label=_tick_label(index * step, step))
            for index in range(first, last + 1)
        ]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A polyline with a colour class of the style sheet; named lines appear in the legend."""

    path: str
    color: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point, with a vertical bar of its interval where it has one."""

    x: float
    y: float
    color: str
    low: float | None = None
    high: float | None = None
    label: str = ""

    @property
    def anchor(self) -> str:
        """Where the label's text begins or ends, so that it stays inside."""
        return "start" if self.x < (LEFT + RIGHT) / 2 else "end"


@dataclass(frozen=True, kw_only=True)
class Area:
    """A filled outline."""

    path: str
    color: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Everything that is drawn, in pixels of a WIDTH by HEIGHT box."""

    title: str
    caption: str
    x_label: str
    y_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line] = ()
    dots: Sequence[Dot] = ()
    areas: Sequence[Area] = ()

    @property
    def legend(self) -> list[Line | Area]:
        """What needs a name."""
        marks: list[Line | Area] = [*self.lines, *self.areas]
        return [mark for mark in marks if mark.name]


def horizontal(low: float, high: float, *, log: bool = False) -> Scale:
    """A scale along the x axis."""
    return _scale(low, high, LEFT, RIGHT, log)


def vertical(low: float, high: float, *, log: bool = False) -> Scale:
    """A scale along the y axis, upwards."""
    return _scale(low, high, BOTTOM, TOP, log)


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through points."""
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points)


def steps(edges: Sequence[float], heights: Sequence[float], x: Scale, y: Scale) -> str:
    """A closed outline of histogram bars."""
    points = [(x(edges[0]), y(0.0))]
    for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
        points += [(x(left), y(height)), (x(right), y(height))]
    return polyline([*points, (x(edges[-1]), y(0.0))]) + "Z"


def _scale(low: float, high: float, start: float, end: float, log: bool) -> Scale:
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    return Scale(low=low, high=high, start=start, end=end, log=log)


def _tick_step(low: float, high: float) -> float:
    """1, 2 or 5 times a power of ten, for about five ticks."""
    rough = (high - low) / 5 * (1 - 1e-9)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(unit * power for unit in (1, 2, 5, 10) if unit * power >= rough)


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    units = (1,) if len(powers) > 4 else (1, 2, 5)
    values = [unit * 10.0**power for power in powers for unit in units]
    return [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


def _tick_label(value: float, step: float) -> str:
    if value and step >= 1000:
        return f"{value / 1000:g}k" if step < 1e6 else f"{value / 1e6:g}M"
    return f"{value:.{max(0, -math.floor(math.log10(step)))}f}"
