from ranker.stages import all_met, describe

RECORD = {
    "held_out/ctr/excess": 0.002,
    "held_out/ctr/excess_low": -0.001,
    "held_out/ctr/excess_high": 0.005,
    "held_out/ctr/slack": 0.001,
    "held_out/ctr/met": 1.0,
}


def test_constraints_are_told_in_words() -> None:
    assert describe(RECORD) == "; ctr: +0.20% of its reference, constraint met"
    assert describe({**RECORD, "held_out/ctr/met": 0.0}).endswith("constraint not met")
    assert describe({}) == ""


def test_all_must_be_met() -> None:
    assert all_met({})
    assert all_met(RECORD)
    assert not all_met({**RECORD, "held_out/like/met": 0.0})
