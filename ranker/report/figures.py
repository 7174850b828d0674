"""The figures of a report: from its JSON to charts."""

from itertools import cycle

from ranker.report.charts import (
    Area,
    Chart,
    Dot,
    Line,
    horizontal,
    polyline,
    steps,
    vertical,
)
from ranker.report.encoding import Json

COLORS = ("one", "two", "three", "four", "five", "six")
MAX_DOTS = 40
# calibration needs a logarithmic scale when the bins span more than this factor
LOG_SPAN = 20

_TRAINING = {
    "loss": ("Loss", "The loss that training lowers."),
    "auc": (
        "AUC while training",
        "AUC at each evaluation, and of the rows trained since the record before.",
    ),
    "gauc": ("GAUC while training", "GAUC at each evaluation."),
    "logloss": ("Logloss while training", "Logloss at each evaluation."),
    "multipliers": ("Multipliers", "The price of each constraint; 0 where it does not bind."),
}


def task_figures(task: Json) -> list[Chart]:
    """The curves of a task that have something to draw."""
    curves = task["curves"]
    drawn = [
        (_roc, curves["roc"]),
        (_precision_recall, curves["precision_recall"]),
        (_calibration, curves["calibration"]),
        (_histogram, curves["histogram"]),
    ]
    return [draw(curve) for draw, curve in drawn if curve is not None]


def training_figures(training: Json) -> list[Chart]:
    """One chart per entry of `training_series`."""
    charts = []
    for name, lines in training.items():
        caption = (
            "How much worse than its reference on validation, as a share; the constraint is met "
            "where the interval reaches below the slack."
            if name.startswith("held-out ")
            else "What is held, and the reference that it is held to."
        )
        words = (name[0].upper() + name[1:], caption)
        charts.append(_over_steps(*_TRAINING.get(name, words), lines))
    return charts


def _roc(curve: Json) -> Chart:
    x, y = horizontal(0, 1), vertical(0, 1)
    points = zip(curve["false_positive_rate"], curve["true_positive_rate"], strict=True)
    path = polyline([(x(alarm), y(hit)) for alarm, hit in points])
    diagonal = polyline([(x(0), y(0)), (x(1), y(1))])
    return Chart(
        title="ROC",
        caption="Share of positives found against share of negatives called positive. "
        "The dashed line is a random order.",
        x_label="false positive rate",
        y_label="true positive rate",
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        lines=[Line(path=diagonal, color="guide"), Line(path=path, color="one")],
    )


def _precision_recall(curve: Json) -> Chart:
    x, y = horizontal(0, 1), vertical(0, 1)
    rate = curve["precision"][-1]
    points = zip(curve["recall"], curve["precision"], strict=True)
    guide = polyline([(x(0), y(rate)), (x(1), y(rate))])
    return Chart(
        title="Precision and recall",
        caption="Share of positives among the rows called positive, against share of positives "
        "found. The dashed line is a random order.",
        x_label="recall",
        y_label="precision",
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        lines=[
            Line(path=guide, color="guide"),
            Line(path=polyline([(x(left), y(top)) for left, top in points]), color="one"),
        ],
    )


def _calibration(curve: Json) -> Chart:
    predicted, observed = curve["predicted"], curve["observed"]
    positive = [value for value in (*predicted, *observed) if value > 0]
    log = bool(positive) and max(positive) > LOG_SPAN * min(positive)
    top = min(max((*predicted, *(curve["high"] or observed))) * 1.05, 1.0) or 1.0
    low = min(positive) / 1.5 if log else 0.0
    x, y = horizontal(low, top, log=log), vertical(low, top, log=log)
    bars = zip(curve["low"], curve["high"], strict=True) if curve["low"] else None
    dots = []
    for mean, rate in zip(predicted, observed, strict=True):
        bar = next(bars) if bars else None
        dots.append(
            Dot(
                x=x(mean),
                y=y(rate),
                color="one",
                low=None if bar is None else y(bar[0]),
                high=None if bar is None else y(bar[1]),
            )
        )
    return Chart(
        title="Calibration",
        caption=f"Observed rate against mean prediction, bins of equal mass: {len(dots)}"
        + (", bars are 95% Wilson intervals" if bars else "")
        + ". On the dashed line a prediction means what it says.",
        x_label="mean prediction" + (" (log scale)" if log else ""),
        y_label="observed rate",
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        lines=[Line(path=polyline([(x(low), y(low)), (x(top), y(top))]), color="guide")],
        dots=dots,
    )


def _histogram(curve: Json) -> Chart:
    edges = curve["edges"]
    classes = [(name, curve[name]) for name in ("negative", "positive") if curve[name] is not None]
    x = horizontal(edges[0], edges[-1])
    y = vertical(0, max(max(shares) for _, shares in classes) * 1.05)
    colors = {"negative": "two", "positive": "one"}
    return Chart(
        title="Scores",
        caption="Distribution of the logit among positives and among negatives, each adding up "
        "to 100%.",
        x_label="logit",
        y_label="share of the class",
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        areas=[
            Area(path=steps(edges, shares, x, y), color=colors[name], name=f"{name}s")
            for name, shares in classes
        ],
    )


def _over_steps(title: str, caption: str, series: Json) -> Chart:
    points = [point for line in series.values() for point in line]
    taken, values = [step for step, _ in points], [value for _, value in points]
    margin = 0.05 * (max(values) - min(values))
    x = horizontal(min(taken), max(taken))
    y = vertical(min(values) - margin, max(values) + margin)
    lines, dots = [], []
    for color, (name, line) in zip(cycle(COLORS), series.items(), strict=False):
        pixels = [(x(step), y(value)) for step, value in line]
        lines.append(Line(path=polyline(pixels), color=color, name=name))
        # few points are measurements to be seen, many are a curve
        if len(pixels) <= MAX_DOTS:
            dots += [Dot(x=left, y=top, color=color) for left, top in pixels]
    return Chart(
        title=title,
        caption=caption,
        x_label="step",
        y_label="",
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        lines=lines,
        dots=dots,
    )
