"""Draws methods in the plane of two AUCs as a small SVG."""

from collections.abc import Mapping, Sequence
from html import escape

from ranker.report.charts import horizontal, polyline, vertical
from ranker.report.pareto import pareto_front

_STYLE = (
    "text{font:10px sans-serif;fill:#333}.axis{stroke:#999}.sweep{stroke:#4477aa;fill:none}"
    ".static{fill:#4477aa}.priority{fill:#cc3311}.other{fill:#999933}"
)


def draw_pareto(points: Mapping[str, tuple[float, float]], axes: Sequence[str]) -> str:
    """Returns an SVG: the front of the static weights joined, the other methods as points.

    Args:
        points: AUCs of two tasks by method; "static ..." belong to the sweep, those with ">" are
            prioritised.
        axes: names of the two tasks.
    """
    xs, ys = [x for x, _ in points.values()], [y for _, y in points.values()]
    margin_x, margin_y = 0.08 * (max(xs) - min(xs)), 0.08 * (max(ys) - min(ys))
    x = horizontal(min(xs) - margin_x, max(xs) + margin_x)
    y = vertical(min(ys) - margin_y, max(ys) + margin_y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 340 268"><style>{_STYLE}</style>',
        '<rect width="340" height="268" fill="#fff"/>',
        '<path class="axis" d="M60,10V222H330" fill="none"/>',
        *(
            f'<text x="{t.position}" y="236" text-anchor="middle">{t.label}</text>'
            for t in x.ticks()
        ),
        *(
            f'<text x="55" y="{t.position + 3}" text-anchor="end">{t.label}</text>'
            for t in y.ticks()
        ),
        f'<text x="195" y="256" text-anchor="middle">AUC of {escape(axes[0])}</text>',
        f'<text x="14" y="116" text-anchor="middle" transform="rotate(-90 14 116)">'
        f"AUC of {escape(axes[1])}</text>",
    ]
    sweep = [point for name, point in points.items() if name.startswith("static")]
    front = [sweep[i] for i in pareto_front(sweep, (True, True))]
    if len(front) > 1:
        path = polyline([(x(a), y(b)) for a, b in front])
        parts.append(f'<path class="sweep" d="{path}"/>')
    for name, (a, b) in points.items():
        kind = "static" if name.startswith("static") else "priority" if ">" in name else "other"
        anchor = "start" if x(a) < 230 else "end"
        offset = 5 if anchor == "start" else -5
        parts.append(f'<circle class="{kind}" cx="{x(a)}" cy="{y(b)}" r="3"/>')
        parts.append(
            f'<text x="{x(a) + offset}" y="{y(b) - 4}" text-anchor="{anchor}" font-size="7">'
            f"{escape(name)}</text>"
        )
    return "\n".join([*parts, "</svg>\n"])
