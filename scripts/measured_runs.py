"""What scripts that compare many small runs share: train, score, tell differences."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray

from ranker.checkpoint import load_checkpoint
from ranker.config import build_train_job, to_plain
from ranker.distributed import process_group
from ranker.evaluate import predict
from ranker.metrics.student_t import student_t_quantile
from ranker.report.predictions import Predictions
from ranker.run_dir import claim_run_dir
from ranker.supervision.supervisor import supervise
from ranker.trainer import Trainer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

FloatArray = NDArray[np.float64]


def train_and_predict(overrides: Sequence[str]) -> Predictions:
    """Trains a run in this process and scores the test split with its best checkpoint.

    The run is deleted in the end; one that was interrupted goes on.

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
        load_checkpoint(run.checkpoints / f"step-{best:08d}", trainer.trainable)
        loader = job.build_loader("test", process, shuffle=False)
        predictions = predict(trainer.trainable.model, loader, job.schema, process.device)
    assert predictions is not None  # there is one process
    shutil.rmtree(job.run_dir)
    return predictions


def render_interval(values: FloatArray) -> str:
    """Returns the mean and its 95 % interval over seeds; the mean alone for one seed."""
    mean = float(values.mean())
    if len(values) < 2:
        return f"{mean:+.4f}"
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    half = student_t_quantile(0.975, len(values) - 1) * error
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"
