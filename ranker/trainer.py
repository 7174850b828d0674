"""Training: the loop, its state, and how it goes on after a stop."""

import dataclasses
import math

import torch
from torch import Tensor

from ranker.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from ranker.distributed import Process, agree, mean_over_ranks, process_group
from ranker.evaluate import compute_scores, predict
from ranker.job import TrainerOptions, TrainJob
from ranker.logging import RunLog
from ranker.run_dir import RunDir, claim_run_dir
from ranker.train_step import StepResult, TrainStep
from ranker_data.reader import DataError


@dataclasses.dataclass
class Progress:
    """Where a run is: saved with every checkpoint.

    Attributes:
        step: global steps taken.
        epoch: current pass over the data.
        epoch_step: steps taken in it; with the epoch, the position in the data.
        best_step: step of the best evaluation.
        best_score: its monitored metric.
        bad_evaluations: evaluations since then.
        last_evaluation: step of the last evaluation.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    best_step: int | None = None
    best_score: float | None = None
    bad_evaluations: int = 0
    last_evaluation: int | None = None


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


def train(job: TrainJob) -> None:
    """Trains a job in this process, which may be one of several that torchrun started."""
    options = job.trainer
    with (
        process_group(options.device, options.timeout_seconds) as process,
        claim_run_dir(job.run_dir, job.config) as run,
    ):
        trainer = Trainer(job, process, run)
        progress = trainer.fit()
        if process.is_main:
            print(f"trained {progress.step} steps{_describe_best(progress, options)}: {run.path}")


def _describe_best(progress: Progress, options: TrainerOptions) -> str:
    if progress.best_score is None:
        return ""
    return f"; best {options.monitor} {progress.best_score:.5f} at step {progress.best_step}"


class Trainer:
    """Trains a job until it is finished; launched again it goes on at the exact next row.

    Args:
        job: what to train.
        process: this process.
        run: the run's directory, open.
    """

    def __init__(self, job: TrainJob, process: Process, run: RunDir) -> None:
        self.job, self.process, self.run = job, process, run
        self.options = job.trainer
        self.train_loader = job.build_loader("train", process, shuffle=True)
        self.valid_loader = job.build_loader("valid", process, shuffle=False)
        # each rank checks its own parts; all of them learn what is wrong before any training
        for loader in (self.valid_loader, self.train_loader):
            agree(loader.check, DataError)
        self.trainable = job.build_trainable(process.device)
        self.train_step = TrainStep(self.trainable, seed=job.seed, rank=process.rank)
        self.progress = Progress()
        self._saved_step: int | None = None
        self._last_loss: Tensor | None = None
        steps = self.options.epochs * self.train_loader.num_steps
        self.total_steps = min(steps, self.options.max_steps or steps)
        notices = self._resume()
        self.log = RunLog(
            run.path,
            total_steps=self.total_steps,
            batch_size=job.loader.batch_size,
            resume_step=self.progress.step,
            enabled=process.is_main,
        )
        for notice in notices:
            self.log.say(notice)

    def fit(self) -> Progress:
        """Trains to the end, and returns where that is."""
        try:
            while not self._is_finished():
                self._train_epoch()
            if self._saved_step != self.progress.step:
                self._save()
        finally:
            self.log.close()
        return self.progress

    def _train_epoch(self) -> None:
        progress = self.progress
        for batch in self.train_loader.batches(progress.epoch, progress.epoch_step):
            batch = batch.to(self.process.device, non_blocking=True)
            result = self.train_step(batch, progress.step)
            self._last_loss = result.loss
            progress.step += 1
            progress.epoch_step += 1
            self.log.step()
            if progress.step % self.options.log_every_steps == 0:
                self._log_training(result)
            if self._is_due(self.options.eval_every_steps):
                self._evaluate()
            elif self._is_due(self.options.checkpoint_every_steps):
                self._save()
            if self._is_finished():
                break
        if progress.epoch_step == self.train_loader.num_steps:
            progress.epoch, progress.epoch_step = progress.epoch + 1, 0
        if progress.last_evaluation != progress.step:
            self._evaluate()

    def _log_training(self, result: StepResult) -> None:
        names = ["loss", *(f"loss_{name}" for name in result.parts)]
        values = mean_over_ranks(torch.stack([result.loss, *result.parts.values()]))
        record = dict(zip(names, values.tolist(), strict=True))
        self._check_finite(record["loss"])
        self.log.record("train", self.progress.step, record)

    def _check_finite(self, loss: float) -> None:
        """Stops all ranks before a model that is broken can replace a good checkpoint."""
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss} at step {self.progress.step}; the checkpoints that are there "
                "are from before. Lower the learning rates, or look for extreme dense values"
            )

    def _evaluate(self) -> None:
        """Scores the validation split, remembers the best step and saves a checkpoint."""
        progress = self.progress
        predictions = predict(
            self.trainable.model, self.valid_loader, self.job.schema, self.process.device
        )
        scores = compute_scores(predictions)
        progress.last_evaluation = progress.step
        self.log.record("valid", progress.step, scores)
        if self.options.monitor not in scores:
            raise ValueError(
                f"trainer.monitor is {self.options.monitor!r}; the evaluation has "
                f"{', '.join(scores)}"
            )
        score = scores[self.options.monitor]
        shown = "undefined" if score is None else f"{score:.5f}"
        self.log.say(f"step {progress.step}: valid {self.options.monitor} {shown}")
        if score is not None and self._improves(score):
            progress.best_score, progress.best_step = score, progress.step
            progress.bad_evaluations = 0
        else:
            progress.bad_evaluations += 1
        self._save()
        self.log.pause()

    def _improves(self, score: float) -> bool:
        best = self.progress.best_score
        if best is None:
            return True
        return score > best if self.options.mode == "max" else score < best

    def _is_due(self, every_steps: int | None) -> bool:
        return every_steps is not None and self.progress.step % every_steps == 0

    def _is_finished(self) -> bool:
        patience = self.options.patience
        stopped = patience is not None and self.progress.bad_evaluations >= patience
        return self.progress.step >= self.total_steps or stopped

    def _save(self) -> None:
        if self._last_loss is not None:
            self._check_finite(float(mean_over_ranks(self._last_loss)))
        state = {
            "progress": dataclasses.asdict(self.progress),
            "num_streams": self.job.loader.num_streams,
            "batch_size": self.job.loader.batch_size,
        }
        save_checkpoint(self.run.checkpoints, self.progress.step, self.trainable, state)
        self._saved_step = self.progress.step
        prune_checkpoints(
            self.run.checkpoints, self.options.keep_checkpoints, self.progress.best_step
        )
        self.log.pause()

    def _resume(self) -> list[str]:
        path, problems = find_checkpoint(self.run.checkpoints)
        notices = [f"warning: skipped a damaged checkpoint: {problem}" for problem in problems]
        if path is not None:
            state = load_checkpoint(path, self.trainable)
            self.progress = Progress(**state["progress"])
            self._saved_step = self.progress.step
            notices.append(f"resuming {self.run.path} at step {self.progress.step}")
        return notices
