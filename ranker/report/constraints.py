"""Constrained training in a report: what was held to what, and whether it was.

Records of training with keys `multiplier/<name>`, `constraint/<name>/<metric>` and
`constraint/<name>/reference` tell of it; a loss is to stay below its reference, any other metric
above.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ranker.report.encoding import Json

MULTIPLIER = "multiplier/"
CONSTRAINT = "constraint/"
REFERENCE = "reference"


def last_constraints(records: Sequence[Mapping[str, Any]]) -> list[Json]:
    """The constraints as the last record of training that has them left them.

    Returns:
        {"name", "metric", "value", "reference", "multiplier" or None, "step"} of each.
    """
    for record in reversed(records):
        found = [
            {
                "name": name,
                "metric": metric,
                "value": value,
                "reference": record[f"{CONSTRAINT}{name}/{REFERENCE}"],
                "multiplier": record.get(f"{MULTIPLIER}{name}"),
                "step": record["step"],
            }
            for name, metric, value in _values(record)
            if record.get(f"{CONSTRAINT}{name}/{REFERENCE}") is not None
        ]
        if found:
            return found
    return []


def is_met(constraint: Json) -> bool:
    """Whether the value is on the right side of its reference."""
    value, reference = constraint["value"], constraint["reference"]
    return bool(value <= reference if constraint["metric"] == "loss" else value >= reference)


def describe_constraint(constraint: Json) -> str:
    """A constraint in a plain sentence."""
    value, reference = constraint["value"], constraint["reference"]
    verb = "meets" if is_met(constraint) else "misses"
    share = f" by {abs(value - reference) / abs(reference):.2%}" if reference else ""
    text = (
        f"{constraint['name']}: {constraint['metric']} {value:.4g} {verb} its reference "
        f"{reference:.4g}{share} at step {constraint['step']:,}"
    )
    multiplier = constraint["multiplier"]
    return text + (f", with a multiplier of {multiplier:.3g}." if multiplier is not None else ".")


def _values(record: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """(name, metric, value) of every constraint in a record."""
    parts = [key.split("/") for key in record if key.startswith(CONSTRAINT)]
    return [
        (name, metric, record[f"{CONSTRAINT}{name}/{metric}"])
        for _, name, metric in (part for part in parts if len(part) == 3)
        if metric != REFERENCE and record[f"{CONSTRAINT}{name}/{metric}"] is not None
    ]
