"""A budget of behaviours changes how a batch is computed, not its loss and not its scores."""

from typing import Any

import numpy as np
import pytest

from ranker.train_step import TrainStep

BUDGET = ["loader.max_behaviors=60"]


def first_loss(runner: Any, name: str) -> float:
    return float(next(r["loss"] for r in runner.records(name) if "loss" in r))


def test_a_batch_in_parts_has_the_loss_of_the_batch(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.alone("whole", "trainer.max_steps=2")
    sizes: list[list[int]] = []
    call = TrainStep.__call__

    def spy(self: TrainStep, batch: Any, step: int) -> Any:
        sizes.append([part.num_behaviors for part in batch])
        return call(self, batch, step)

    monkeypatch.setattr(TrainStep, "__call__", spy)
    runner.alone("parts", "trainer.max_steps=2", *BUDGET)
    assert all(len(parts) > 1 and max(parts) <= 60 for parts in sizes)
    assert first_loss(runner, "parts") == pytest.approx(first_loss(runner, "whole"), rel=1e-5)
    # two ranks need different numbers of parts, and must take the same number of passes
    done = runner.torchrun("ranks", "trainer.max_steps=2", *BUDGET)
    assert done.returncode == 0, done.stderr
    assert first_loss(runner, "ranks") == pytest.approx(first_loss(runner, "whole"), rel=1e-5)


def test_scores_do_not_depend_on_the_budget(runner: Any) -> None:
    # without a step both have the initial weights
    rates = ["optimizer.dense_lr=0.0", "optimizer.sparse_lr=0.0", "trainer.max_steps=1"]
    runner.alone("whole", *rates)
    runner.alone("parts", *rates, *BUDGET)
    whole, parts = (
        next(r for r in runner.records(name) if any(k.endswith("logloss") for k in r))
        for name in ("whole", "parts")
    )
    for key, value in whole.items():
        if isinstance(value, float):
            np.testing.assert_allclose(parts[key], value, rtol=1e-5)
