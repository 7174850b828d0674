"""What changed against a baseline: paired differences on the same rows, and the settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ranker.report.compare import ComparisonContext, compare_predictions
from ranker.report.encoding import Json
from ranker.report.forest import TITLES
from ranker.report.predictions import Predictions
from ranker.report.wording import signed

# what the summary tells of; the table shows all
TOLD = ("auc", "gauc", "normalized_entropy")


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The run that a report is held against."""

    run: str
    predictions: Predictions
    # key -> (its value there, its value here), of settings that differ
    changes: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def build_baseline(
    predictions: Predictions, baseline: Baseline, *, run: str, context: ComparisonContext
) -> Json:
    """The comparison with the baseline as JSON.

    Raises:
        ValueError: the two were not made on the same rows, or share no task.
    """
    runs = {baseline.run: baseline.predictions, run: predictions}
    comparison = compare_predictions(runs, context)
    return {
        "run": baseline.run,
        "changes": [[key, *values] for key, values in sorted(baseline.changes.items())],
        "tasks": comparison["tasks"],
        "summary": " ".join(_tell(task) for task in comparison["tasks"]),
    }


def config_changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Flat settings that differ, absent ones as "absent"; a run's own name is no difference."""
    keys = sorted({*there, *here} - {"name", "run_root"})
    pairs = {key: (str(there.get(key, "absent")), str(here.get(key, "absent"))) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _tell(task: Json) -> str:
    parts = []
    for metric in task["metrics"]:
        found = metric["runs"][1]
        if metric["name"] not in TOLD or not found["difference"]:
            continue
        text = f"{TITLES[metric['name']]} {signed(found['difference']['difference'])}"
        interval = found["difference"]["interval"]
        if interval["low"] is not None:
            text += f" ({signed(interval['low'])} to {signed(interval['high'])})"
            text += f", {found['verdict']}"
        parts.append(text)
    return f"{task['name']}: {'; '.join(parts) or 'nothing can be compared'}."
