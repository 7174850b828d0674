"""Whether an evaluated checkpoint meets the constraints of its training on held-out data.

Evaluations in training write `held_out/<task>/excess` (how much worse than its reference a held
task is, as a share of the reference), `excess_low` and `excess_high` (95 % interval), `slack` and
`met` (1 or 0); `active`, the share of updates that found it violated, and `at_max`, how many in
a row it has been at its maximum while the constraint is violated.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ranker.report.encoding import Json

HELD_OUT = "held_out/"
_VALUES = ("excess", "excess_low", "excess_high", "slack")


def held_out_constraints(
    records: Sequence[Mapping[str, Any]], checkpoint: str | None
) -> list[Json]:
    """The constraints at the evaluation of a checkpoint, or at the last one if it has none.

    Args:
        records: lines of metrics.jsonl.
        checkpoint: name of the checkpoint, "step-00000400".

    Returns:
        {"name", "step", "met", "excess", "excess_low", "excess_high", "slack", and "active" and
        "at_max", None where not recorded} of each.
    """
    evaluated = [r for r in records if any(key.startswith(HELD_OUT) for key in r)]
    if not evaluated:
        return []
    own = [r for r in evaluated if checkpoint == f"step-{r['step']:08d}"]
    record = (own or evaluated)[-1]
    names = [key.split("/")[1] for key in record if key.endswith("/met")]
    return [
        {"name": name, "step": record["step"], "met": record[f"{HELD_OUT}{name}/met"] == 1}
        | {value: record[f"{HELD_OUT}{name}/{value}"] for value in _VALUES}
        | {value: record.get(f"{HELD_OUT}{name}/{value}") for value in ("active", "at_max")}
        for name in names
    ]


def describe_held_out(constraint: Json) -> str:
    """A constraint in a plain sentence."""
    excess = constraint["excess"]
    side = "worse" if excess > 0 else "better"
    verdict = "constraint met" if constraint["met"] else "constraint not met"
    return (
        f"{constraint['name']}: on validation at step {constraint['step']:,} {abs(excess):.2%} "
        f"{side} than its reference (95 % interval {constraint['excess_low']:+.2%} to "
        f"{constraint['excess_high']:+.2%}, slack {constraint['slack']:.2%}): {verdict}."
        + _describe_multiplier(constraint)
    )


def _describe_multiplier(constraint: Json) -> str:
    """What the multiplier tells of the constraint, if anything."""
    if constraint["at_max"]:
        return (
            " Warning: its multiplier is at objective.dual.max and the constraint still violated; "
            "it may be infeasible."
        )
    if constraint["active"] == 0:
        return " Nothing violated it in training: the tasks agree, or the slack is too wide."
    return ""
