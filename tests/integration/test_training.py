"""Training as a whole: the same on 1 and 2 ranks, and after any stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.checkpoint_files import CheckpointError, list_checkpoints
from ranker.exit_codes import NonFiniteError
from ranker.run_dir import RunDirError, claim_run_dir
from ranker_data.layout import samples_path
from ranker_data.reader import DataError


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Losses to 1e-5, metrics to 1e-6, the same records in the same order."""
    assert [(r["kind"], r["step"]) for r in found] == [(r["kind"], r["step"]) for r in expected]
    for one, other in zip(found, expected, strict=True):
        tolerance = 1e-5 if one["kind"] == "train" else 1e-6
        assert one.pop("kind") == other["kind"]
        expected_values = {name: value for name, value in other.items() if name != "kind"}
        assert one == pytest.approx(expected_values, abs=tolerance, rel=0)


@pytest.mark.parametrize(
    "encoder",
    [
        ["sequence=[din]", "sequence.din.activation=dice"],
        ["sequence=[din,mean_pool]", "sequence.din.normalize=softmax", "head.activation=dice"],
    ],
)
def test_two_ranks_train_like_one(runner: Any, encoder: list[str]) -> None:
    overrides = [*encoder, "loader.samples_per_user=2", "+embedding.dims.category=8"]
    runner.alone("one", *overrides)
    done = runner.torchrun("two", *overrides)
    assert done.returncode == 0, done.stderr
    assert_same(runner.records("two"), runner.records("one"))


def test_an_interrupted_run_ends_bit_identical(runner: Any) -> None:
    runner.alone("whole")
    runner.alone("parts", "trainer.max_steps=2")
    runner.alone("parts", "trainer.max_steps=5")
    runner.alone("parts")
    # the stops add evaluations; everything that both runs recorded is equal to the last bit
    parts = {(r["kind"], r["step"]): r for r in runner.records("parts")}
    for record in runner.records("whole"):
        assert parts[record["kind"], record["step"]] == record


def test_a_run_goes_on_with_another_number_of_ranks(runner: Any) -> None:
    runner.alone("whole")
    done = runner.torchrun("parts", "trainer.max_steps=3")
    assert done.returncode == 0, done.stderr
    runner.alone("parts")
    parts = {(r["kind"], r["step"]): r for r in runner.records("parts")}
    whole = runner.records("whole")
    assert_same([parts[r["kind"], r["step"]] for r in whole], whole)


def flip_a_byte(checkpoint: Path) -> None:
    shard = max(checkpoint.glob("*.distcp"), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))


def truncate(checkpoint: Path) -> None:
    shard = next(checkpoint.glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:100])


def remove_manifest(checkpoint: Path) -> None:
    (checkpoint / "MANIFEST.json").unlink()


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, remove_manifest])
def test_a_damaged_checkpoint_is_passed_over(
    runner: Any, damage: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    runner.alone("whole")
    runner.alone("parts", "trainer.max_steps=5")
    newest = list_checkpoints(runner.run_root / "parts" / "checkpoints")[-1]
    damage(newest)
    runner.alone("parts")
    assert f"skipped a damaged checkpoint: {newest}" in capfd.readouterr().err
    assert runner.records("parts")[-1] == runner.records("whole")[-1]


def test_there_is_no_silent_fresh_start(runner: Any) -> None:
    runner.alone("run", "trainer.max_steps=4")
    for checkpoint in list_checkpoints(runner.run_root / "run" / "checkpoints"):
        flip_a_byte(checkpoint)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is usable") as error:
        runner.alone("run")
    assert "does not match the hash in its manifest" in str(error.value)


def test_another_config_may_not_resume(runner: Any) -> None:
    runner.alone("run", "trainer.max_steps=2")
    with pytest.raises(RunDirError, match=r"loader\.max_length: 10 -> 11"):
        runner.alone("run", "loader.max_length=11")


def test_two_runs_never_share_a_directory(tmp_path: Path) -> None:
    with (
        claim_run_dir(tmp_path / "run", {"a": 1}),
        pytest.raises(RunDirError, match="is in use by process"),
        claim_run_dir(tmp_path / "run", {"a": 1}),
    ):
        pass


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunDirError, match=r"cannot be written .*; set run_root="),
        claim_run_dir(tmp_path / "file" / "run", {}),
    ):
        pass


def test_bad_data_on_one_rank_is_told_once_by_all(
    make_runner: Callable[[Path], Any], make_tiny_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_tiny_dataset(tmp_path / "data")
    path = samples_path(data, "train", 3)  # rank 1's
    table = pq.read_table(path)
    weights = pa.array([-1.0] * table.num_rows, pa.float32())
    index = table.schema.get_field_index("weight")
    pq.write_table(table.set_column(index, table.schema.field("weight"), weights), path)
    runner = make_runner(data)
    done = runner.torchrun("run", "trainer.timeout_seconds=20")
    assert done.returncode != 0
    assert done.stderr.count("a weight must be finite and not negative") == 1
    assert "part-00003.parquet" in done.stderr
    assert "Traceback" not in done.stderr.split("error: ", 1)[0]
    with pytest.raises(DataError, match="a weight must be finite"):
        runner.alone("alone")


def test_early_stopping_ends_a_run_that_does_not_improve(runner: Any) -> None:
    runner.alone(
        "run",
        "trainer.epochs=50",
        "trainer.patience=2",
        "trainer.eval_every_steps=2",
        "optimizer.dense_lr=0",
        "optimizer.sparse_lr=0",
    )
    evaluations = [r for r in runner.records("run") if r["kind"] == "valid"]
    assert len(evaluations) == 3
    kept = [path.name for path in list_checkpoints(runner.run_root / "run" / "checkpoints")]
    assert kept[0] == "step-00000002"  # the best one outlives the newest two
    assert len(kept) == 3


def test_a_broken_model_is_never_saved(runner: Any) -> None:
    runner.alone("run", "trainer.max_steps=4")
    before = list_checkpoints(runner.run_root / "run" / "checkpoints")
    overrides = ["optimizer.dense_lr=1e30", "optimizer.sparse_lr=1e30"]
    with pytest.raises(NonFiniteError, match=r"the loss is not finite at step"):
        runner.alone("broken", *overrides, "trainer.log_every_steps=100")
    assert len(before) == 2
    assert not list_checkpoints(runner.run_root / "broken" / "checkpoints")


def test_an_unknown_metric_to_monitor_is_named(runner: Any) -> None:
    with pytest.raises(ValueError, match=r"trainer\.monitor is 'ctr\.aux'; the evaluation has"):
        runner.alone("run", "trainer.monitor=ctr.aux", "trainer.max_steps=1")
