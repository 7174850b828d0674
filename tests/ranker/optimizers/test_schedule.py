"""Schedules against their formulas."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.optimizers.schedule import ScheduledRates, ScheduleOptions


def test_warm_up_rises_to_the_full_rate() -> None:
    schedule = ScheduleOptions(warmup_steps=4)
    assert [schedule.factor(step, 100) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_and_linear_arrive_at_the_final_factor() -> None:
    cosine = ScheduleOptions(kind="cosine", final_factor=0.1, warmup_steps=10)
    linear = ScheduleOptions(kind="linear", decay_steps=50)
    assert cosine.factor(10, 110) == 1.0
    assert cosine.factor(60, 110) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert cosine.factor(110, 110) == pytest.approx(0.1)
    assert cosine.factor(500, 110) == pytest.approx(0.1)
    assert [linear.factor(step, 1000) for step in (0, 25, 50, 99)] == [1.0, 0.5, 0.0, 0.0]


def test_steps_multiply() -> None:
    schedule = ScheduleOptions(kind="step", step_size=10, gamma=0.5, warmup_steps=5)
    found = [schedule.factor(step, 0) for step in (5, 14, 15, 25)]
    assert found == [1.0, 1.0, 0.5, 0.25]


@given(st.sampled_from(["linear", "cosine"]), st.integers(0, 50), st.integers(1, 200))
def test_a_decay_never_rises_and_stays_between_its_ends(
    kind: str, warmup: int, length: int
) -> None:
    schedule = ScheduleOptions(kind=kind, warmup_steps=warmup, final_factor=0.2)  # type: ignore[arg-type]
    total = warmup + length
    factors = [schedule.factor(step, total) for step in range(warmup, total + 3)]
    assert all(later <= sooner for sooner, later in itertools.pairwise(factors))
    assert min(factors) >= 0.2 - 1e-12
    assert max(factors) <= 1.0


def test_rates_are_the_base_times_the_factor_however_often_they_are_set() -> None:
    groups = [{"lr": 0.2}, {"lr": 0.05}]
    rates = ScheduledRates([("sparse", ScheduleOptions(kind="linear"), groups)], total_steps=10)
    for step in (5, 5, 0, 5):
        rates.apply(step)
    assert [group["lr"] for group in groups] == [0.1, 0.025]
    assert rates.report() == {"lr_factor_sparse": 0.5}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "exponential"}, "must be one of constant"),
        ({"kind": "step"}, "needs a step_size"),
        ({"step_size": 3}, "no other has one"),
        ({"warmup_steps": -1}, "must not be negative"),
        ({"kind": "cosine", "warmup_steps": 9, "decay_steps": 9}, "must be greater"),
        ({"final_factor": 2.0}, r"in \[0, 1\]"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScheduleOptions(**values)  # type: ignore[arg-type]
