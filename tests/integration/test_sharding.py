"""Placements, optimizers, micro-batches, pipelines: what may change the numbers, and what not."""

import json
from typing import Any

import pytest

from ranker.checkpoint_files import list_checkpoints, read_state
from ranker.config_reader import ConfigError
from ranker.placement import PlacementError

QUICK = ["trainer.epochs=1", "sequence=[din]"]
# every placement that there is, in one model; quotes keep the pattern whole for Hydra
MIXED = [
    "sharding=auto",
    "+sharding.tables.item_id=column_wise",
    "+sharding.tables.user_id=row_wise",
    "+sharding.tables.category=table_wise",
    "sharding.data_parallel_rows=5",
]
SCHEDULED = [
    "optimizer.schedule.kind=cosine",
    "optimizer.schedule.warmup_steps=2",
    "optimizer.sparse_schedule.kind=linear",
    "optimizer.max_grad_norm=0.05",
    "+optimizer.tables.item_id.lr=0.2",
    "+optimizer.tables.tag.optimizer=sgd",
]


def assert_close(
    found: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float
) -> None:
    assert [r["step"] for r in found] == [r["step"] for r in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            assert one[name] == pytest.approx(value, abs=tolerance), name


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd"])
def test_a_replicated_table_trains_like_a_sharded_one(runner: Any, optimizer: str) -> None:
    choice = [*QUICK, f"optimizer.sparse={optimizer}"]
    runner.alone("sharded", *choice)
    runner.alone("replicated", *choice, "sharding=data_parallel")
    assert_close(runner.records("replicated"), runner.records("sharded"), 2e-5)


def test_no_placement_and_no_pipeline_changes_the_numbers(runner: Any) -> None:
    optimizer = "optimizer.sparse=adagrad"
    runner.alone("plain", *QUICK, *SCHEDULED, optimizer)
    done = runner.torchrun(
        "mixed",
        *QUICK,
        *SCHEDULED,
        *MIXED,
        optimizer,
        "trainer.pipeline=true",
        "trainer.eval_every_steps=2",
    )
    assert done.returncode == 0, done.stderr
    plain = [r for r in runner.records("plain") if r["kind"] == "train"]
    mixed = [r for r in runner.records("mixed") if r["kind"] == "train"]
    assert_close(mixed, plain, 2e-5)
    assert all(record["grad_norm"] > 0 for record in plain)
    plan = json.loads((runner.run_root / "mixed" / "plan.json").read_text())
    kinds = {table["name"]: table["sharding"] for table in plan["tables"]}
    assert kinds["item_id"] == "column_wise"
    assert kinds["category"] == "table_wise"
    assert kinds["event"] == kinds["domain"] == "data_parallel"
    assert "item_id" in (runner.run_root / "mixed" / "plan.txt").read_text()
    newest = list_checkpoints(runner.run_root / "mixed" / "checkpoints")[-1]
    assert read_state(newest)["plan"] == plan


def test_a_pipeline_is_exact_around_evaluations(runner: Any) -> None:
    choice = [*QUICK, "trainer.eval_every_steps=2", "trainer.checkpoint_every_steps=1"]
    runner.alone("plain", *choice)
    runner.alone("pipelined", *choice, "trainer.pipeline=true")
    assert runner.records("pipelined") == runner.records("plain")


def test_micro_batches_are_exact_with_dense_gradients(runner: Any) -> None:
    # batches of 1/2 of the rows, or of 1/4: the rows of a step are the same
    choice = [*QUICK, *SCHEDULED[:3], "sharding=data_parallel", "objective=bce"]
    runner.alone("whole", *choice)
    runner.alone("parts", *choice, "trainer.accumulate_steps=4")
    assert_close(runner.records("parts"), runner.records("whole"), 2e-5)


def test_micro_batches_move_fused_tables_several_times(runner: Any) -> None:
    runner.alone("whole", *QUICK)
    runner.alone("parts", *QUICK, "trainer.accumulate_steps=2")
    whole, parts = (
        [r["loss"] for r in runner.records(name) if r["kind"] == "train"]
        for name in ("whole", "parts")
    )
    # the first loss is that of the whole batch; row-wise Adagrad then moves in two steps
    assert parts[0] == pytest.approx(whole[0], abs=1e-6)
    assert parts[-1] != whole[-1]
    assert parts[-1] == pytest.approx(whole[-1], abs=0.1)


def test_two_ranks_accumulate_like_one_and_resume_exactly(runner: Any) -> None:
    choice = [*QUICK, *SCHEDULED, "trainer.accumulate_steps=2", "trainer.checkpoint_every_steps=2"]
    runner.alone("whole", *choice)
    done = runner.torchrun("parts", *choice, "trainer.max_steps=3")
    assert done.returncode == 0, done.stderr
    runner.alone("parts", *choice)
    parts = {(r["kind"], r["step"]): r for r in runner.records("parts")}
    whole = runner.records("whole")
    assert_close([parts[r["kind"], r["step"]] for r in whole], whole, 2e-5)


def test_a_scheduled_run_that_was_interrupted_ends_bit_identical(runner: Any) -> None:
    choice = [*QUICK, *SCHEDULED, "sharding=data_parallel", "optimizer=adam_l2"]
    runner.alone("whole", *choice)
    runner.alone("parts", *choice, "trainer.max_steps=2")
    runner.alone("parts", *choice)
    parts = {(r["kind"], r["step"]): r for r in runner.records("parts")}
    for record in runner.records("whole"):
        assert parts[record["kind"], record["step"]] == record


def test_bf16_trains_close_to_fp32(runner: Any) -> None:
    runner.alone("full", *QUICK)
    runner.alone("half", *QUICK, "trainer.precision=bf16")
    full, half = (runner.records(name) for name in ("full", "half"))
    assert half != full
    assert half[-1]["ctr.logloss"] == pytest.approx(full[-1]["ctr.logloss"], abs=0.02)


def test_a_profile_is_written_and_changes_nothing(runner: Any) -> None:
    choice = ["trainer.epochs=4", "loader.batch_size=48"]
    runner.alone("plain", *choice)
    runner.alone("profiled", *choice, "trainer.profile=true")
    assert runner.records("profiled") == runner.records("plain")
    folder = runner.run_root / "profiled" / "profile"
    assert (folder / "trace.json.gz").stat().st_size > 1000
    lines = (folder / "summary.txt").read_text().splitlines()
    assert len(lines) == 10
    assert "operator calls a step" in lines[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.sparse=adam"], "fused kernel exists on GPUs only"),
        (["optimizer.sparse=sgd", "optimizer.sparse_weight_decay=0.1"], "does not apply as L2"),
        (["sharding.kernel=fused_uvm_caching"], "without a GPU use fused"),
        (["sharding.index_dedup=true"], "its kernel exists on GPUs only"),
        (["+sharding.tables.itemid=row_wise"], "did you mean 'item_id'"),
        (["+optimizer.tables.user_x.lr=1.0"], "matches no table"),
        (
            ["sharding=data_parallel", "optimizer.sparse=partial_rowwise_adam"],
            "which torch does not have",
        ),
        (["sharding.host_gb=0.000001"], "cannot be placed"),
    ],
)
def test_what_a_cpu_cannot_do_is_refused(runner: Any, overrides: list[str], message: str) -> None:
    with pytest.raises((ValueError, PlacementError), match=message):
        runner.alone("run", *overrides)


def test_options_are_checked_before_anything_is_built(runner: Any) -> None:
    with pytest.raises(ConfigError, match=r"pipeline is true and accumulate_steps is 2"):
        runner.job("run", "trainer.pipeline=true", "trainer.accumulate_steps=2")
    with pytest.raises(ConfigError, match=r"optimizer\.schedule: decay_steps"):
        runner.job("run", "+optimizer.schedule.decay_steps=3", "optimizer.schedule.warmup_steps=5")
    with pytest.raises(ConfigError, match=r"unknown key optimizer\.tables\.tag\.rate"):
        runner.job("run", "+optimizer.tables.tag.rate=3")
