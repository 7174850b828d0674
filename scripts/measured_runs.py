"""What scripts that compare many small runs share: train, score, tell differences."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from torch import nn

from ranker.checkpoint import load_checkpoint
from ranker.checkpoint_files import checkpoint_path
from ranker.config import build_train_job, to_plain
from ranker.distributed import Process, process_group
from ranker.evaluate import predict
from ranker.job import TrainJob
from ranker.metrics.student_t import student_t_quantile
from ranker.report.predictions import Predictions
from ranker.run_dir import claim_run_dir
from ranker.supervision.supervisor import supervise
from ranker.trainer import Trainer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

FloatArray = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class BestRun:
    """A finished run with the weights of its best checkpoint.

    Attributes:
        job: that made it.
        process: this process.
        model: in evaluation it scores a batch.
    """

    job: TrainJob
    process: Process
    model: nn.Module

    def predict(self) -> Predictions:
        """Returns the predictions of the test split."""
        loader = self.job.build_loader("test", self.process, shuffle=False)
        found = predict(self.model, loader, self.job.schema, self.process.device)
        assert found is not None  # there is one process
        return found


@contextlib.contextmanager
def train_best(overrides: Sequence[str]) -> Iterator[BestRun]:
    """Trains a run in this process, and goes back to its best checkpoint.

    One that was interrupted goes on, one that was finished is taken as it is.

    Args:
        overrides: of configs/train.yaml, among them the name of the run.
    """
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        job = build_train_job(to_plain(compose("train", list(overrides))))
    with (
        process_group(job.trainer.device) as process,
        claim_run_dir(job.run_dir, job.config) as run,
        supervise(run, process) as supervisor,
    ):
        trainer = Trainer(job, process, run, supervisor)
        best = trainer.fit().best_step
        assert best is not None  # there is an evaluation at the end
        load_checkpoint(checkpoint_path(run.checkpoints, best), trainer.trainable)
        yield BestRun(job, process, trainer.trainable.model)


def train_and_predict(overrides: Sequence[str]) -> Predictions:
    """Trains a run in this process and scores the test split with its best checkpoint.

    The run is deleted in the end; one that was interrupted goes on.

    Args:
        overrides: of configs/train.yaml, among them the name of the run.
    """
    with train_best(overrides) as best:
        predictions = best.predict()
    shutil.rmtree(best.job.run_dir)
    return predictions


def render_interval(values: FloatArray) -> str:
    """Returns the mean and its 95 % interval over seeds; the mean alone for one seed."""
    mean = float(values.mean())
    if len(values) < 2:
        return f"{mean:+.4f}"
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    half = student_t_quantile(0.975, len(values) - 1) * error
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"
