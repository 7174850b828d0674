"""Objectives with parameters of their own learn also when a batch comes in micro-batches."""

from collections.abc import Callable

import pytest

from ranker.distributed import process_group
from ranker.job import TrainJob
from ranker.run_dir import claim_run_dir
from ranker.supervision.supervisor import supervise
from ranker.trainer import Trainer


def train_scalars(job: TrainJob) -> dict[str, float]:
    """Trains and returns the scalars of the minimax problem."""
    with (
        process_group("cpu") as process,
        claim_run_dir(job.run_dir, job.config) as run,
        supervise(run, process) as supervisor,
    ):
        trainer = Trainer(job, process, run, supervisor)
        trainer.fit()
        named = trainer.trainable.model.named_parameters()
        return {name.split("scalars.")[1]: p.item() for name, p in named if "scalars." in name}


def test_scalars_of_a_minimax_objective_move_alike(make_job: Callable[..., TrainJob]) -> None:
    base = ["experiment=synthetic_tpauc", "optimizer.sparse_lr=1e-9"]
    whole = train_scalars(make_job(*base, "name=whole"))
    parts = train_scalars(make_job(*base, "name=parts", "trainer.accumulate_steps=2"))
    assert parts == pytest.approx(whole, abs=1e-5)
    assert parts["ctr.a"] != 0.5
