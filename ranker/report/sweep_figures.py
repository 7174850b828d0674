"""The figures of a sweep: from its JSON to parallel coordinates and a Pareto front."""

from ranker.report.charts import Chart, Dot, Line, horizontal, polyline, vertical
from ranker.report.compared import COMPARED
from ranker.report.encoding import Json
from ranker.report.parallel import ParallelPlot, parallel_plot

# more groups than this would write over each other
MAX_LABELS = 8


def sweep_plot(report: Json) -> ParallelPlot | None:
    """Parallel coordinates of the finished points; None if there are fewer than two."""
    sweep = report["sweep"]
    done = [point for point in sweep["points"] if point["objective"] is not None]
    if len(done) < 2 or not done[0]["values"]:
        return None
    objective = [point["objective"] for point in done]
    more = COMPARED[sweep["objective"].partition(".")[2]]
    best = objective.index(max(objective) if more else min(objective))
    return parallel_plot([point["values"] for point in done], objective, sweep["objective"], best)


def pareto_figure(pareto: Json) -> Chart | None:
    """Groups in the plane of two metrics, the front joined; None with fewer than two groups."""
    groups = pareto["groups"]
    if len(groups) < 2:
        return None
    first, second = pareto["metrics"]
    xs, ys = [pair[0] for pair in groups.values()], [pair[1] for pair in groups.values()]
    x_margin, y_margin = 0.08 * (max(xs) - min(xs)), 0.08 * (max(ys) - min(ys))
    x = horizontal(min(xs) - x_margin, max(xs) + x_margin)
    y = vertical(min(ys) - y_margin, max(ys) + y_margin)
    front = [groups[name] for name in pareto["front"]]
    path = polyline([(x(left), y(top)) for left, top in front])
    return Chart(
        title="Pareto front",
        caption="A dot is a group of runs (mean over seeds). None beats those on the line in both "
        "metrics. Noise is not shown: read the tables before choosing.",
        x_label=first,
        y_label=second,
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        lines=[Line(path=path, color="guide")],
        dots=[
            Dot(
                x=x(left),
                y=y(top),
                color="one" if name in pareto["front"] else "two",
                label=name if len(groups) <= MAX_LABELS else "",
            )
            for name, (left, top) in groups.items()
        ],
    )
