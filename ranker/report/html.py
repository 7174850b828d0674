"""HTML from the JSON of a report or a comparison: one file, no script, no network.

Foreign text (names, slices, configuration) stays text: everything is escaped, and characters that
could disguise it are replaced.
"""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ranker.report import wording
from ranker.report.cards import GAUGE_WIDTH, headline_cards, metric_rows
from ranker.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from ranker.report.constraints import describe_constraint
from ranker.report.encoding import Json
from ranker.report.feasibility import describe_held_out
from ranker.report.figures import task_figures, training_figures
from ranker.report.forest import FOREST_WIDTH, forests, group_forests
from ranker.report.search import describe_search
from ranker.report.sweep_figures import pareto_figure, sweep_plot


def render_html(report: Json) -> str:
    """The page for a report of `build_report`; a pure function of it."""
    return _environment().get_template("report.html.j2").render(report=report)


def render_comparison(comparison: Json) -> str:
    """The page for a comparison of `compare_predictions`; a pure function of it."""
    return _environment().get_template("comparison.html.j2").render(report=comparison)


def render_groups(comparison: Json) -> str:
    """The page for groups of runs, or a sweep, of `ranker.report.sweep`; a pure function of it."""
    return _environment().get_template("groups.html.j2").render(report=comparison)


def render_page(template: str, report: Json, **helpers: Callable[..., Any]) -> str:
    """The page of any template, which may call the helpers; a pure function of the report."""
    return _environment().get_template(template).render(report=report, **helpers)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ranker.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimal": wording.decimal,
        "signed": wording.signed,
        "percent": wording.percent,
        "count": wording.count,
        "between": wording.between,
        "p_value": wording.p_value,
    }
    environment.globals |= {
        "describe_constraint": describe_constraint,
        "describe_held_out": describe_held_out,
        "describe_search": describe_search,
        "headline_cards": headline_cards,
        "metric_rows": metric_rows,
        "forests": forests,
        "group_forests": group_forests,
        "sweep_plot": sweep_plot,
        "pareto_figure": pareto_figure,
        "task_figures": task_figures,
        "training_figures": training_figures,
        "box": {
            "width": WIDTH,
            "height": HEIGHT,
            "left": LEFT,
            "right": RIGHT,
            "top": TOP,
            "bottom": BOTTOM,
            "gauge": GAUGE_WIDTH,
            "forest": FOREST_WIDTH,
        },
    }
    return environment


def _finalize(value: Any) -> Any:
    # markup was made by our macros from values that went through here
    if isinstance(value, str) and not isinstance(value, Markup):
        return wording.harmless(value)
    return value
