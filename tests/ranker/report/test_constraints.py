import pytest

from ranker.report.constraints import describe_constraint, is_met, last_constraints


def test_the_last_record_that_has_them_tells() -> None:
    records = [
        {
            "kind": "train",
            "step": 10,
            "constraint/like/loss": 0.3,
            "constraint/like/reference": 0.2,
        },
        {
            "kind": "train",
            "step": 20,
            "loss": 0.5,
            "multiplier/like": 0.25,
            "constraint/like/loss": 0.21,
            "constraint/like/reference": 0.2,
            "constraint/share/auc": 0.7,
            "constraint/share/reference": 0.69,
        },
        {"kind": "valid", "step": 20, "ctr.auc": 0.7},
    ]
    like, share = last_constraints(records)
    assert like == {
        "name": "like",
        "metric": "loss",
        "value": 0.21,
        "reference": 0.2,
        "multiplier": 0.25,
        "step": 20,
    }
    assert not is_met(like)
    assert is_met(share)
    assert describe_constraint(like) == (
        "like: loss 0.21 misses its reference 0.2 by 5.00% at step 20, with a multiplier of 0.25."
    )
    assert describe_constraint(share).startswith("share: auc 0.7 meets its reference 0.69 by")
    assert describe_constraint(share).endswith("at step 20.")


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "train", "step": 1, "loss": 0.1},
        {"kind": "train", "step": 1, "multiplier/a": 0.1},
        {"kind": "train", "step": 1, "constraint/a/loss": 0.1},
        {"kind": "train", "step": 1, "constraint/a/loss": None, "constraint/a/reference": 0.1},
    ],
)
def test_what_is_no_constraint(record: dict[str, float | str | None]) -> None:
    assert last_constraints([record]) == []
