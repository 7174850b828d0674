"""What checkpoints hold, who can load them, and what other runs can take out of them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ranker.checkpoint_files import CheckpointError, list_checkpoints, step_of
from ranker.checkpoint_tensors import read_tensors, tensor_shapes
from ranker.export import read_safetensors


def newest(runner: Any, name: str) -> Path:
    path: Path = list_checkpoints(runner.run_root / name / "checkpoints")[-1]
    return path


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return read_tensors(path, tensor_shapes(path))


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    differing = [key for key, value in one.items() if not torch.equal(value, other[key])]
    assert not differing


def test_a_save_behind_the_training_holds_the_state_of_its_step(runner: Any) -> None:
    overrides = ["trainer.keep_checkpoints=9"]
    runner.alone("in_step", *overrides)
    runner.alone("behind", *overrides, "trainer.async_checkpoint=true")
    steps = [step_of(p) for p in list_checkpoints(runner.run_root / "in_step" / "checkpoints")]
    assert steps == [3, 5, 6, 9, 10]
    for step in steps:
        name = f"checkpoints/step-{step:08d}"
        assert_equal(
            tensors_of(runner.run_root / "behind" / name),
            tensors_of(runner.run_root / "in_step" / name),
        )


def test_an_interrupted_run_ends_with_the_same_tensors(runner: Any) -> None:
    runner.alone("whole")
    runner.alone("parts", "trainer.max_steps=4")
    runner.alone("parts")
    assert_equal(tensors_of(newest(runner, "parts")), tensors_of(newest(runner, "whole")))


@pytest.mark.parametrize("plan", ["table_wise", "column_wise"])
def test_a_checkpoint_fits_another_plan(runner: Any, plan: str) -> None:
    runner.alone("run", "trainer.max_steps=4", "sharding=row_wise")
    before = tensors_of(newest(runner, "run"))
    done = runner.torchrun("run", "trainer.max_steps=4", f"sharding={plan}", "embedding.dim=16")
    assert done.returncode == 0, done.stderr
    assert_equal(tensors_of(newest(runner, "run")), before)
    done = runner.torchrun("run", f"sharding={plan}")
    assert done.returncode == 0, done.stderr
    runner.alone("whole")
    last = runner.records("run")[-1]
    whole = runner.records("whole")[-1]
    assert last["step"] == whole["step"]
    assert last["ctr.logloss"] == pytest.approx(whole["ctr.logloss"], abs=1e-6)


def test_what_does_not_fit_is_named(runner: Any) -> None:
    runner.alone("run", "trainer.max_steps=2")
    config = runner.run_root / "run" / "config.yaml"
    text = config.read_text()
    # as if the same config had meant another model, in an older version of the code
    config.write_text(text.replace("hidden_units:\n  - 16", "hidden_units:\n  - 8"))
    assert config.read_text() != text
    with pytest.raises(CheckpointError) as error:
        runner.alone("run", "head.hidden_units=[8]")
    message = str(error.value)
    assert "of another shape: model.model.body.head" in message
    assert "saved [16], model [8]" in message
    assert "+warm_start.run=" in message


def test_a_warm_start_says_what_it_takes(runner: Any, capfd: pytest.CaptureFixture[str]) -> None:
    runner.alone("old", "trainer.max_steps=4")
    old = f"warm_start.run={runner.run_root / 'old'}"
    capfd.readouterr()
    runner.alone("new", f"+{old}", "head.hidden_units=[8]", "trainer.max_steps=1")
    said = capfd.readouterr().err
    assert "warm start from" in said
    assert "begins afresh: model.model.body.head.tower.layers.0.weight" in said
    # the tables were taken: the first loss is not that of a fresh model with the same head
    assert "begins afresh: model.model.embedding" not in said


def test_a_warm_start_of_the_same_model_goes_on_where_the_old_one_was(runner: Any) -> None:
    runner.alone("old", "trainer.max_steps=4")
    rates = ["optimizer.dense_lr=0", "optimizer.sparse_lr=0", "optimizer.dense_weight_decay=0"]
    runner.alone(
        "new",
        f"+warm_start.run={runner.run_root / 'old'}",
        "+warm_start.checkpoint=last",
        "+warm_start.optimizer=true",
        *rates,
        "trainer.max_steps=1",
    )
    old, new = tensors_of(newest(runner, "old")), tensors_of(newest(runner, "new"))
    weights = [key for key in old if key.startswith("model.")]
    assert_equal({k: new[k] for k in weights}, {k: old[k] for k in weights})


def test_a_grown_table_keeps_its_rows(
    runner: Any,
    make_runner: Callable[[Path], Any],
    make_tiny_dataset: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    runner.alone("old", "trainer.max_steps=4")
    data = make_tiny_dataset(tmp_path / "grown")
    schema = data / "schema.yaml"
    text = schema.read_text()
    schema.write_text(text.replace("num_embeddings: 40", "num_embeddings: 50"))
    assert schema.read_text() != text
    grown = make_runner(data)
    rates = ["optimizer.dense_lr=0", "optimizer.sparse_lr=0", "optimizer.dense_weight_decay=0"]
    start = f"+warm_start.run={runner.run_root / 'old'}"
    done = grown.torchrun("new", start, *rates, "trainer.max_steps=1")
    assert done.returncode == 0, done.stderr
    assert "took the first 40 rows of model.model.embedding" in done.stderr
    key = next(k for k in tensor_shapes(newest(runner, "old")) if k.endswith("item_id.weight"))
    old, new = tensors_of(newest(runner, "old"))[key], tensors_of(newest(grown, "new"))[key]
    assert new.shape == (50, 16)
    assert torch.equal(new[:40], old)
    # the new rows are those that a fresh model begins with
    grown.alone("fresh", *rates, "trainer.max_steps=1")
    assert torch.equal(new[40:], tensors_of(newest(grown, "fresh"))[key][40:])


def test_a_warm_start_from_nothing_is_an_error(runner: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint; train the run first"):
        runner.alone("run", f"+warm_start.run={tmp_path / 'nothing'}")


def test_a_deterministic_run_is_the_same_on_a_cpu(runner: Any) -> None:
    runner.alone("plain", "sequence=[din]", "trainer.max_steps=3")
    runner.alone("run", "sequence=[din]", "trainer.max_steps=3", "trainer.deterministic=true")
    assert not torch.are_deterministic_algorithms_enabled()
    assert_equal(tensors_of(newest(runner, "run")), tensors_of(newest(runner, "plain")))


def test_the_command_lists_verifies_and_exports(
    runner: Any, project_root: Path, tmp_path: Path
) -> None:
    runner.alone("run", "trainer.max_steps=4")
    run = str(runner.run_root / "run")

    def checkpoint(*arguments: str) -> subprocess.CompletedProcess[str]:
        script = str(project_root / "scripts" / "checkpoint.py")
        return subprocess.run(
            [sys.executable, script, *arguments], capture_output=True, text=True, timeout=120
        )

    out = tmp_path / "exported"
    done = checkpoint("export", run, "--checkpoint", "last", "--out", str(out), "--optimizer")
    assert done.returncode == 0, done.stderr
    saved = tensors_of(newest(runner, "run"))
    for prefix in ("model.", "optimizer."):
        exported = read_safetensors(out / f"{prefix}safetensors")
        expected = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
        assert_equal(exported, expected)
    assert json.loads((out / "state.json").read_text())["step"] == 4
    assert (out / "config.yaml").read_text() == (runner.run_root / "run/config.yaml").read_text()
    done = checkpoint("list", run)
    assert "step-00000004" in done.stdout
    assert "1 ranks" in done.stdout
    shard = next(newest(runner, "run").glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-1])
    done = checkpoint("verify", run)
    assert done.returncode == 4
    assert "step-00000003  ok" in done.stdout
    assert "step-00000004  DAMAGED" in done.stdout
    assert "its manifest says" in done.stderr
