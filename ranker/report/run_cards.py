"""Model card and data card of a run, in Markdown, filled from what the run knows.

The headings are those of Mitchell et al., "Model cards for model reporting" (FAT* 2019) and Gebru
et al., "Datasheets for datasets" (2021), as far as a program can fill them. What only people know
is left as a question, not invented.
"""

import json
from pathlib import Path
from typing import Any

from ranker.report import wording
from ranker.report.encoding import Json
from ranker.report.files import replace_file
from ranker.report.markdown import escape, table
from ranker_data.layout import STATS_FILE
from ranker_data.schema import Field, Schema

ASK = "_To be said by the people responsible._"


def read_stats(root: Path) -> Json:
    """stats.json of a prepared data set; empty if the data has none."""
    path = root / STATS_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def write_cards(directory: Path, report: Json, schema: Schema, stats: Json) -> tuple[Path, Path]:
    """Write model_card.md and data_card.md; returns their paths."""
    paths = directory / "model_card.md", directory / "data_card.md"
    texts = render_model_card(report, schema), render_data_card(schema, stats)
    for path, text in zip(paths, texts, strict=True):
        with replace_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def render_model_card(report: Json, schema: Schema) -> str:
    """The model card of an evaluated run; a pure function of its arguments."""
    lines = [f"# Model card: {escape(report['run'])}", ""]
    lines += ["## Model", ""]
    facts = {"evaluated": report["created"], **report["environment"]}
    lines += table(["", ""], [[escape(key), escape(value)] for key, value in facts.items()])
    lines += ["", "## What it predicts", ""]
    tasks = {task.name: task for task in schema.tasks}
    lines += table(
        ["task", "label", "defined on"],
        (
            [
                escape(task["name"]),
                escape(tasks[task["name"]].label),
                escape(task["space"]),
            ]
            for task in report["tasks"]
        ),
    )
    lines += ["", "## What it sees", ""]
    lines += table(["part", "fields"], _inputs(schema))
    lines += ["", f"## How good it is (split {escape(report['split'])})", ""]
    lines += [f"{report['rows']:,} rows of {report['users']:,} users.", ""]
    for task in report["tasks"]:
        lines += [f"* **{escape(task['name'])}**: {escape(task['summary'])}"]
        lines += [f"  * {escape(remark)}" for remark in task["remarks"]]
    lines += ["", "## Where it is worst", ""]
    worst = [
        f"* {escape(task['name'])}, {escape(row['slice'])}: AUC "
        f"{wording.decimal(row['metrics']['auc']['value'])} on {row['rows']:,} rows"
        for task in report["tasks"]
        for row in task["worst"]["slices"]
        if row["below"]
    ]
    lines += worst or ["No slice is worse than chance explains."]
    for title in ("Intended use", "Not intended for", "Risks and fairness"):
        lines += ["", f"## {title}", "", ASK]
    return "\n".join(lines) + "\n"


def render_data_card(schema: Schema, stats: Json) -> str:
    """The data card of a prepared data set; a pure function of its arguments."""
    lines = [f"# Data card: {escape(schema.name)}", "", "## Fields", ""]
    lines += table(
        ["field", "of", "kind", "table", "rows of the table"],
        (
            [
                escape(field.name),
                side,
                field.kind,
                escape(field.table or ""),
                _rows(schema, field),
            ]
            for side, field in [
                *((field.side, field) for field in schema.fields),
                *(("history", field) for field in schema.behaviors),
            ]
        ),
    )
    if stats.get("behaviors"):
        lines += ["", "## Behaviour log", "", *_facts(stats["behaviors"])]
    for split, facts in stats.get("samples", {}).items():
        labels = facts.get("labels", {})
        rest = {key: value for key, value in facts.items() if key != "labels"}
        lines += ["", f"## Samples of split {escape(split)}", "", *_facts(rest), ""]
        lines += table(
            ["label", "defined", "positive", "rate"],
            (
                [
                    escape(name),
                    f"{label['defined']:,}",
                    f"{label['positive']:,}",
                    wording.percent(label["rate"], 2),
                ]
                for name, label in labels.items()
            ),
        )
    for title in ("Source and licence", "How it was collected", "Consent and privacy"):
        lines += ["", f"## {title}", "", ASK]
    return "\n".join(lines) + "\n"


def _inputs(schema: Schema) -> list[list[str]]:
    sides = {side: schema.fields_of(side) for side in ("user", "item", "context")}
    parts = {**sides, "history": schema.behaviors}
    return [
        [part, ", ".join(escape(field.name) for field in fields)] for part, fields in parts.items()
    ]


def _rows(schema: Schema, field: Field) -> str:
    if field.table is None:
        return ""
    size = schema.table(field.table).num_embeddings
    return "hashed, no vocabulary" if size is None else f"{size:,}"


def _facts(values: Json) -> list[str]:
    return table(["", ""], [[escape(key), escape(_text(value))] for key, value in values.items()])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
