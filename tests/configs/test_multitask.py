"""Prioritised and balanced tasks in whole runs: stages, ranks, stops and every head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ranker.constraint_values import ConstraintValues
from ranker.exit_codes import InfeasibleError
from ranker.job import TrainJob
from ranker.trainer import train
from ranker_data.batch import RankingBatch

MakeJob = Callable[..., TrainJob]
Launch = Callable[..., None]

BASE = [
    "dataset=synthetic",
    "sequence=[mean_pool]",
    "loader.batch_size=256",
    "loader.max_length=5",
    "embedding.dim=4",
    "trainer.max_steps=null",
    "trainer.epochs=1",
]
TOWERS = ["head.towers.hidden_units=[4]"]
ESMM = [
    "objective@objective.base=esmm",
    "head.towers.predict=[ctr,cvr]",
    "+head.towers.products.ctcvr=[ctr,cvr]",
]
SHARED = [
    "head=shared_bottom",
    "head.bottom_units=[8]",
    "head.towers.predict=[ctr,like,long_view]",
    *TOWERS,
]
PRIORITY = [
    "objective=lagrangian",
    "objective.constraints.num_batches=3",
    "objective.constraints.every_steps=2",
]
THREE = [*PRIORITY, *SHARED, "objective.priority=[ctr,like,long_view]"]
BALANCED = [*SHARED, "objective.tasks=[ctr,like,long_view]"]
# every head, every way to hold a task, and every way to weigh tasks
JOBS = {
    "esmm_training_losses": [
        *PRIORITY,
        "head=esmm",
        *ESMM,
        *TOWERS,
        "objective.priority=[ctcvr,ctr]",
        "objective.constraints.stream=train",
    ],
    "mmoe_metrics": [
        *PRIORITY,
        "head=mmoe",
        *ESMM,
        *TOWERS,
        "objective.priority=[ctr,ctcvr]",
        "+objective.constraints.metrics={ctr: auc}",
        # an AUC jumps when two rows of equal score change places; with this seed none do
        "seed=1",
    ],
    "ple_losses": [*PRIORITY, "head=ple", *ESMM, *TOWERS, "objective.priority=[ctr,ctcvr]"],
    # fused tables learn from each micro-batch, of which two ranks have others than one
    "ple_in_micro_batches": [
        *PRIORITY,
        "head=ple",
        *ESMM,
        *TOWERS,
        "objective.priority=[ctr,ctcvr]",
        "loader.max_behaviors=120",
        "optimizer.sparse_lr=0.0",
        "optimizer.dense_lr=0.01",
    ],
    "pepnet_simultaneous": [
        *PRIORITY,
        "head=ppnet",
        "head.ppnet.prior=[user_id]",
        "gate=epnet",
        "gate.prior=[domain]",
        *ESMM,
        *TOWERS,
        "objective.priority=[ctr,ctcvr]",
        "objective.mode=simultaneous",
    ],
    "uncertainty": ["objective=uncertainty", *BALANCED],
    "dwa": ["objective=dwa", "objective.window_steps=2", *BALANCED],
    "gradnorm": ["objective=gradnorm", *BALANCED],
    "pareto_efficient": ["objective=pareto_efficient", *BALANCED],
    "cagrad": ["objective=gramian_weights", "objective.method=cagrad", *BALANCED],
}


def read_records(job: TrainJob) -> list[dict[str, Any]]:
    """The records, without what a clock or a memory meter says."""
    lines = (job.run_dir / "metrics.jsonl").read_text().splitlines()
    keys = (
        "kind",
        "step",
        "loss",
        "constraint",
        "held_out",
        "multiplier",
        "weight",
        "ctr.",
        "like.",
        "ctcvr.",
    )
    # the calibration error jumps when a row changes its bin
    return [
        {k: v for k, v in json.loads(line).items() if k.startswith(keys) and not k.endswith(".ece")}
        for line in lines
    ]


def test_every_objective_trains_alike_on_one_and_two_ranks(
    make_job: MakeJob, launch: Launch, tmp_path: Path
) -> None:
    jobs = {
        name: [make_job(*BASE, *overrides, f"name={name}_{ranks}") for ranks in (1, 2)]
        for name, overrides in JOBS.items()
    }
    for alone, _ in jobs.values():
        train(alone)
    launch({name: two for name, (_, two) in jobs.items()}, tmp_path / "jobs", ranks=2)
    for name, (alone, two) in jobs.items():
        expected, found = read_records(alone), read_records(two)
        assert len(found) == len(expected) > 5, name
        weights = [value for r in found for key, value in r.items() if key.startswith("weight/")]
        assert len(set(weights)) > 1, f"{name}: the weights never moved"
        for one, other in zip(found, expected, strict=True):
            assert one.pop("kind") == other.pop("kind")
            # multipliers add up many small differences
            assert one == pytest.approx(other, abs=2e-4, rel=1e-3), name


def train_in_parts(
    make_job: MakeJob, name: str, overrides: list[str], stops: list[int]
) -> TrainJob:
    for stop in stops:
        train(make_job(*BASE, *overrides, f"name={name}", f"trainer.max_steps={stop}"))
    job = make_job(*BASE, *overrides, f"name={name}")
    train(job)
    return job


@pytest.mark.parametrize("name", ["three", "esmm_training_losses", "gradnorm"])
def test_an_interrupted_run_ends_bit_identical(make_job: MakeJob, name: str) -> None:
    # evaluations at every step, so that the stops add none; the three stages turn within epochs
    three = [*THREE, "objective.stage_epochs=[0.7,0.5,0.5]"]
    overrides = [*JOBS.get(name, three), "trainer.eval_every_steps=1"]
    whole = train_in_parts(make_job, "whole", overrides, [])
    steps = read_records(whole)[-1]["step"]
    parts = train_in_parts(make_job, "parts", overrides, [steps // 2, steps - 2])
    assert read_records(parts) == read_records(whole)


def test_a_stage_goes_on_with_another_number_of_ranks(
    make_job: MakeJob, launch: Launch, tmp_path: Path
) -> None:
    overrides = [*BASE, *THREE, "trainer.eval_every_steps=1"]
    whole = make_job(*overrides, "name=whole")
    train(whole)
    steps = read_records(whole)[-1]["step"]
    first = make_job(*overrides, "name=parts", f"trainer.max_steps={steps - 2}")
    launch({"parts": first}, tmp_path / "jobs", ranks=2)
    parts = make_job(*overrides, "name=parts")
    train(parts)
    for one, other in zip(read_records(parts), read_records(whole), strict=True):
        assert one.pop("kind") == other.pop("kind")
        assert one == pytest.approx(other, abs=2e-4, rel=1e-3)


def test_stages_hold_what_was_reached_and_say_so(
    make_job: MakeJob, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_job(*BASE, *THREE, "name=run", "trainer.eval_every_steps=2")
    train(job)
    told = capfd.readouterr().err
    assert "stage 1 of 3: improves ctr" in told
    assert "stage 2 of 3: improves like; holds ctr loss at " in told
    assert "stage 3 of 3: improves long_view; holds ctr loss at " in told
    records = read_records(job)
    held = [r for r in records if r["kind"] == "train" and "multiplier/like" in r]
    assert held
    assert all({"multiplier/ctr", "constraint/ctr/reference"} <= set(r) for r in held)
    evaluated = [r for r in records if r["kind"] == "valid"][-1]
    low, high = evaluated["held_out/ctr/excess_low"], evaluated["held_out/ctr/excess_high"]
    assert low <= evaluated["held_out/ctr/excess"] <= high
    assert evaluated["held_out/ctr/slack"] == pytest.approx(0.001, rel=1e-3)


def test_stages_may_share_one_pass(make_job: MakeJob, capfd: pytest.CaptureFixture[str]) -> None:
    job = make_job(*BASE, *THREE, "name=run", "objective.stage_epochs=[0.5,0.34,0.17]")
    train(job)
    told = capfd.readouterr().err
    # of the six steps of an epoch; a stage has one at least
    for start in ("step 0: stage 1", "step 3: stage 2", "step 5: stage 3"):
        assert start in told
    assert read_records(job)[-1]["step"] == 6


def test_references_keep_the_budget_of_behaviours_and_do_not_depend_on_it(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[list[int]] = []
    score = ConstraintValues._score

    def spy(self: ConstraintValues, parts: list[RankingBatch]) -> Any:
        sizes.append([part.num_behaviors for part in parts])
        return score(self, parts)

    monkeypatch.setattr(ConstraintValues, "_score", spy)
    # fused tables learn from each part of a batch, everything else from the whole
    frozen = ["optimizer.dense_lr=0.01", "optimizer.sparse_lr=0.0"]
    held = ["+objective.constraints.metrics={like: auc}", "trainer.log_every_steps=1"]
    found = []
    for name, budget in (("whole", "null"), ("parts", "100")):
        sizes.clear()
        job = make_job(
            *BASE, *THREE, *frozen, *held, f"name={name}", f"loader.max_behaviors={budget}"
        )
        train(job)
        assert (max(map(len, sizes)) > 1) == (name == "parts")
        records = read_records(job)
        found.append([{k: v for k, v in r.items() if "reference" in k} for r in records])
    assert max(max(parts) for parts in sizes) <= 100
    assert any("constraint/like/reference" in record for record in found[0])
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_an_impossible_reference_stops_the_run(make_job: MakeJob) -> None:
    job = make_job(
        *BASE,
        *THREE,
        "name=run",
        "objective.mode=simultaneous",
        "+objective.references={ctr: 0.01, like: 5.0}",
        "objective.dual.max=5",
        "objective.constraints.every_steps=1",
        "objective.constraints.infeasible_updates=2",
    )
    with pytest.raises(InfeasibleError, match="the constraint on ctr cannot be met: its loss is"):
        train(job)


def test_a_constraint_that_never_acts_is_told(
    make_job: MakeJob, capfd: pytest.CaptureFixture[str]
) -> None:
    train(
        make_job(
            *BASE,
            *THREE,
            "name=run",
            "objective.mode=simultaneous",
            "+objective.references={ctr: 50.0, like: 50.0}",
            "objective.dual.initial=0",
        )
    )
    told = capfd.readouterr().err
    assert "warning: the constraint on like was never active in stage 1" in told


def test_a_monitor_that_is_not_measured_is_named(make_job: MakeJob) -> None:
    job = make_job(*BASE, *THREE, "name=run", "+objective.monitors.ctr=ctr.best")
    with pytest.raises(ValueError, match=r"in this stage 'ctr\.best'; the evaluation has ctr\.auc"):
        train(job)
