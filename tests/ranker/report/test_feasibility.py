from typing import Any

import pytest

from ranker.report.feasibility import describe_held_out, held_out_constraints


def record(step: int, excess: float, met: float) -> dict[str, Any]:
    values = {"excess": excess, "excess_low": excess - 0.004, "excess_high": excess + 0.004}
    values |= {"slack": 0.001, "met": met}
    return {"kind": "valid", "step": step, "ctr.auc": 0.7} | {
        f"held_out/ctr/{name}": value for name, value in values.items()
    }


def test_the_evaluated_checkpoint_is_told_not_the_last() -> None:
    records = [record(100, 0.002, 1.0), record(200, 0.02, 0.0), {"kind": "train", "step": 210}]
    (found,) = held_out_constraints(records, "step-00000100")
    assert (found["name"], found["step"], found["met"]) == ("ctr", 100, True)
    assert describe_held_out(found) == (
        "ctr: on validation at step 100 0.20% worse than its reference (95 % interval -0.20% to "
        "+0.60%, slack 0.10%): constraint met."
    )
    (last,) = held_out_constraints(records, None)
    assert describe_held_out(last).endswith("constraint not met.")
    assert last["excess"] == pytest.approx(0.02)


def test_better_than_the_reference_is_said_so() -> None:
    (found,) = held_out_constraints([record(1, -0.01, 1.0)], "step-00000009")
    assert "1.00% better than its reference" in describe_held_out(found)


def test_plain_runs_have_no_constraints() -> None:
    assert held_out_constraints([{"kind": "valid", "step": 1, "ctr.auc": 0.7}], None) == []


@pytest.mark.parametrize(
    ("active", "at_max", "words"),
    [
        (0.0, 0.0, "Nothing violated it in training: the tasks agree, or"),
        (1.0, 3.0, "Warning: its multiplier is at objective.dual.max"),
        (0.5, 0.0, "constraint met."),
    ],
)
def test_what_the_multiplier_tells_is_said(active: float, at_max: float, words: str) -> None:
    told = record(1, 0.0, 1.0) | {"held_out/ctr/active": active, "held_out/ctr/at_max": at_max}
    (found,) = held_out_constraints([told], None)
    sentence = describe_held_out(found)
    assert words in sentence
    assert sentence.endswith("constraint met.") == (active == 0.5)
