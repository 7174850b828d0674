"""Counts that grow with training: alike on any number of ranks, and kept by checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ranker.checkpoint_files import list_checkpoints
from ranker.checkpoint_tensors import read_tensors, tensor_shapes

STREAMED = [
    "regularizer=[mba]",
    "regularizer.mba.tables=[user_id,item_id,tag]",
    "regularizer.mba.frequencies=null",
    "regularizer.mba.weight=0.5",
    "trainer.eval_every_steps=3",
]


def read_counts(runner: Any, name: str) -> dict[str, torch.Tensor]:
    path: Path = list_checkpoints(runner.run_root / name / "checkpoints")[-1]
    keys = [key for key in tensor_shapes(path) if ".regularizers.mba." in key]
    return {key.rpartition(".")[2]: value for key, value in read_tensors(path, keys).items()}


def test_two_ranks_count_like_one_and_a_run_goes_on_with_either(runner: Any) -> None:
    runner.alone("one", *STREAMED)
    done = runner.torchrun("two", *STREAMED, "trainer.async_checkpoint=true")
    assert done.returncode == 0, done.stderr
    done = runner.torchrun("moved", *STREAMED, "trainer.max_steps=6")
    assert done.returncode == 0, done.stderr
    runner.alone("moved", *STREAMED)
    steps = runner.records("one")[-1]["step"]
    assert steps > 6
    for name in ("two", "moved"):
        for one, other in zip(runner.records(name), runner.records("one"), strict=True):
            assert one.pop("kind") == other.pop("kind")
            assert one == pytest.approx(other, abs=1e-5, rel=0), name
    counts = read_counts(runner, "one")
    assert counts.keys() == {"user_id", "item_id", "tag"}
    # every sample has one user
    assert counts["user_id"].sum() == 64 * steps
    for name in ("two", "moved"):
        for table, found in read_counts(runner, name).items():
            assert torch.equal(found, counts[table]), (name, table)
