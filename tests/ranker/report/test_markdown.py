from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from ranker.report.compare import ComparisonContext, compare_predictions
from ranker.report.context import ReportContext, TaskContext
from ranker.report.markdown import (
    escape,
    render_comparison_markdown,
    render_markdown,
    table,
)
from ranker.report.predictions import Predictions
from ranker.report.report import build_report

Make = Callable[..., Predictions]

CONTEXT = ReportContext(
    run="demo", split="test", tasks=[TaskContext(name="ctr")], num_replicates=10
)


def test_every_metric_and_slice_is_there(make_predictions: Make) -> None:
    report = build_report(make_predictions(), CONTEXT)
    text = render_markdown(report)
    assert text.startswith("# demo\n")
    task = report["tasks"][0]
    assert f"| AUC | {task['metrics']['auc']['value']:.4f} |" in text
    for cut in task["slices"]:
        assert f"### By {escape(cut['column'])}" in text
        for row in cut["slices"]:
            assert f"| {row['slice']} | {row['rows']:,} |" in text
    assert "### Where it ranks worst" in text


def test_every_table_has_one_width(make_predictions: Make) -> None:
    lines = render_markdown(build_report(make_predictions(), CONTEXT)).splitlines()
    for above, below in pairwise(lines):
        if above.startswith("|") and below.startswith("|"):
            assert above.replace("\\|", "").count("|") == below.replace("\\|", "").count("|")


@pytest.mark.parametrize(
    "name", ["a|b", "<script>x</script>", "[x](http://evil)", "*b*", "a\nb", "![x](y)", "`c`"]
)
def test_foreign_text_stays_text(make_predictions: Make, name: str) -> None:
    context = replace(CONTEXT, run=name, environment={name: name})
    text = render_markdown(build_report(make_predictions(), context))
    assert text.splitlines()[0] == f"# {escape(name)}"
    assert name not in text
    assert "\n" not in escape(name)


def test_table() -> None:
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "|---|---|", "| 1 | 2 |"]


def test_a_comparison_has_every_run_and_metric(make_predictions: Make) -> None:
    predictions = make_predictions(800)
    runs = {"a|b": predictions, "base": predictions}
    comparison = compare_predictions(
        runs, ComparisonContext(split="test", baseline="base", num_replicates=20)
    )
    lines = render_comparison_markdown(comparison).splitlines()
    assert lines[0] == "# base, a\\|b"
    assert lines.count("## ctr, AUC") == 1
    rows = [line for line in lines if line.startswith("| a\\|b | ")]
    # two tasks, five metrics
    assert len(rows) == 10
    assert "| +0.00000 |" in rows[0]
    assert rows[0].endswith("| no difference shown |")
