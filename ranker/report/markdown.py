"""report.md and comparison.md: the numbers of the pages for a terminal or a merge request."""

from collections.abc import Iterable, Sequence

from ranker.report import wording
from ranker.report.cards import metric_rows
from ranker.report.constraints import describe_constraint
from ranker.report.encoding import Json
from ranker.report.feasibility import describe_held_out
from ranker.report.forest import TITLES
from ranker.report.search import describe_search

MULTIPLE = (
    "p corrected is p after Holm's correction for the number of differences of the metric, and "
    "the intervals are not corrected."
)

# what Markdown or the HTML inside it would act upon
_ACTIVE = "\\`*_{}[]()<>#|~!&$@"


def render_markdown(report: Json) -> str:
    """Plain Markdown of a report of `build_report`; a pure function of it."""
    lines = [
        f"# {escape(report['run'])}",
        "",
        f"Split {escape(report['split'])}, {report['rows']:,} rows, {report['users']:,} users, "
        f"{report['groups']:,} groups"
        + (f", made {escape(report['created'])}" if report["created"] else "")
        + f". Intervals: {report['intervals']['level']:.0%}, resampled users.",
    ]
    for task in report["tasks"]:
        lines += ["", *_task(task)]
    lines += _extras(report)
    if report["environment"]:
        rows = [[escape(name), escape(value)] for name, value in report["environment"].items()]
        lines += ["", "## Environment", "", *table(["", ""], rows)]
    return "\n".join(lines) + "\n"


def _extras(report: Json) -> list[str]:
    """What only some reports have, and the facts of the data."""
    lines = []
    if report["baseline"]:
        lines += ["", f"## Against {escape(report['baseline']['run'])}", ""]
        lines += [escape(report["baseline"]["summary"])]
        changes = [[escape(value) for value in change] for change in report["baseline"]["changes"]]
        if changes:
            lines += ["", *table(["key", "baseline", "this run"], changes)]
    held = [describe_held_out(found) for found in report["held_out"]]
    held = held or [describe_constraint(found) for found in report["constraints"]]
    if held:
        lines += ["", "## Constraints", ""]
        lines += [f"- {escape(sentence)}" for sentence in held]
    for search in report["search"]:
        lines += ["", f"## Search, {escape(search['encoder'])}", ""]
        lines += [escape(describe_search(search)), ""]
        lines += table(
            ["history length", "rows", "hit rate"],
            (
                [escape(row["bucket"]), f"{row['count']:,}", wording.percent(row["hit_rate"])]
                for row in search["by_length"]
            ),
        )
    facts = [[escape(name), escape(value)] for name, value in report["data"].items()]
    return [*lines, "", "## Data", "", *table(["", ""], facts)]


def render_comparison_markdown(comparison: Json) -> str:
    """Plain Markdown of a comparison of `compare_predictions`; a pure function of it."""
    lines = [
        f"# {escape(', '.join(comparison['runs']))}",
        "",
        f"Baseline {escape(comparison['baseline'])}, split {escape(comparison['split'])}, "
        f"{comparison['rows']:,} rows, {comparison['users']:,} users. Differences are paired; "
        f"{MULTIPLE}",
    ]
    for task in comparison["tasks"]:
        for metric in task["metrics"]:
            lines += ["", f"## {escape(task['name'])}, {TITLES[metric['name']]}", ""]
            lines += table(
                ["run", "value", "difference", "interval", "p", "p corrected", "finding"],
                (_compared(run) for run in metric["runs"]),
            )
    return "\n".join(lines) + "\n"


def render_groups_markdown(comparison: Json) -> str:
    """Plain Markdown of groups of runs, or of a sweep, of `ranker.report.sweep`."""
    baseline = f"Baseline {escape(comparison['baseline'])}, s" if comparison["baseline"] else "S"
    lines = [
        f"# {escape(comparison['title'])}",
        "",
        *(f"{escape(line)}\n" for line in comparison["summary"]),
        f"{baseline}plit {escape(comparison['split'])}, {comparison['rows']:,} rows, "
        f"{comparison['users']:,} users. A group holds runs that differ in their seed only. "
        f"Intervals add the spread over users and over seeds; differences are paired; {MULTIPLE}",
    ]
    for task in comparison["tasks"]:
        for metric in task["metrics"]:
            lines += ["", f"## {escape(task['name'])}, {TITLES[metric['name']]}", ""]
            lines += table(
                ["group", "runs", "mean", "difference", "interval", "p", "p corrected", "finding"],
                (_grouped(group) for group in metric["groups"]),
            )
    if comparison["sweep"]:
        sweep = comparison["sweep"]
        lines += ["", "## Points", ""]
        lines += table(
            ["point", "state", escape(sweep["objective"]), "seconds", "reason"],
            (
                [
                    escape(point["name"]),
                    point["state"],
                    wording.decimal(point["objective"]),
                    f"{point['seconds']:.0f}",
                    escape(point["reason"]),
                ]
                for point in sweep["points"]
            ),
        )
    return "\n".join(lines) + "\n"


def _grouped(group: Json) -> list[str]:
    mean = escape(group["reason"]) if group["mean"] is None else wording.decimal(group["mean"])
    if group["interval"]:
        mean += f" ({escape(wording.between(group['interval']))})"
    return [escape(group["group"]), f"{len(group['runs'])}", mean, *_difference(group)]


def _difference(entry: Json) -> list[str]:
    """Difference, interval, p, corrected p and finding of a run or group."""
    difference = entry["difference"]
    if difference is None:
        return [""] * 5
    return [
        wording.signed(difference["difference"], 5),
        escape(wording.between(difference["interval"], 5)),
        escape(wording.p_value(difference["p_value"])),
        escape(wording.p_value(difference["p_adjusted"])),
        entry["verdict"] or "",
    ]


def _compared(run: Json) -> list[str]:
    value = escape(run["reason"]) if run["value"] is None else wording.decimal(run["value"])
    return [escape(run["run"]), value, *_difference(run)]


def escape(text: str) -> str:
    """Foreign text on one line, with everything that Markdown acts upon made literal."""
    line = " ".join(wording.harmless(str(text)).split())
    return "".join(f"\\{character}" if character in _ACTIVE else character for character in line)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table of text that is escaped already."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _task(task: Json) -> list[str]:
    lines = [f"## {escape(task['name'])}", "", escape(task["summary"]), ""]
    lines += [f"> {escape(remark)}" for remark in task["remarks"]]
    lines += [f"{escape(task['space'])}, {task['positives']:,} positives.", ""]
    lines += table(
        ["metric", "value", "interval"],
        (
            [escape(row.title), row.value if not row.reason else escape(row.reason), row.interval]
            for row in metric_rows(task)
        ),
    )
    if task["entire_space"]:
        spaces = (("all rows", "all_rows"), ("labelled rows", "labelled_rows"))
        lines += ["", "### On all rows, labelled or not", ""]
        lines += _measured(
            "space", [(title, task["entire_space"][space]) for title, space in spaces]
        )
    if task["worst"]["slices"]:
        lines += ["", f"### Where it ranks worst, of {task['worst']['candidates']:,} slices", ""]
        lines += _measured("slice", [(row["slice"], row) for row in task["worst"]["slices"]])
    for cut in task["slices"]:
        lines += ["", f"### By {escape(cut['column'])}", ""]
        lines += _measured(cut["column"], [(row["slice"], row) for row in cut["slices"]])
    return lines


def _measured(title: str, rows: Sequence[tuple[str, Json]]) -> list[str]:
    names = ("auc", "gauc", "normalized_entropy", "pcoc")
    return table(
        [escape(title), "rows", "AUC", "GAUC", "NE", "PCOC"],
        (
            [
                escape(label) + (" (few rows)" if row.get("small") else ""),
                f"{row['rows']:,}",
                *(_cell(row["metrics"][name]) for name in names),
            ]
            for label, row in rows
        ),
    )


def _cell(metric: Json) -> str:
    if metric["value"] is None:
        return escape(metric["reason"])
    interval = wording.between(metric["interval"])
    return wording.decimal(metric["value"]) + (f" ({escape(interval)})" if interval else "")
