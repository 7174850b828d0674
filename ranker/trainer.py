"""Training: the loop, its state, and how it goes on after a stop."""

import dataclasses
import math
from collections.abc import Iterator

import torch

from ranker.checkpoint import find_checkpoint, load_checkpoint
from ranker.checkpoint_files import CheckpointError, checkpoint_path
from ranker.checkpoint_writer import CheckpointWriter
from ranker.determinism import deterministic
from ranker.distributed import (
    Process,
    agree,
    broadcast_from_main,
    mean_over_ranks,
    process_group,
)
from ranker.embedding import hashed_tables
from ranker.evaluate import compute_scores, predict
from ranker.exit_codes import PreemptedError
from ranker.job import TrainJob, trainable_of
from ranker.logging import RunLog
from ranker.meter import Meter
from ranker.plan_summary import describe_plan, plan_to_json, write_plan
from ranker.profile import StepProfiler
from ranker.progress import Progress
from ranker.run_dir import RunDir, claim_run_dir
from ranker.stages import Stages, all_met, describe
from ranker.supervision.guard import Guard, StopRequested
from ranker.supervision.signals import signal_name
from ranker.supervision.supervisor import Supervisor, supervise
from ranker.train_step import StepResult
from ranker.warm_start import warm_start
from ranker_data.batch import RankingBatch
from ranker_data.reader import DataError


def train(job: TrainJob) -> None:
    """Trains a job in this process, which may be one of several that torchrun started."""
    options = job.trainer
    with (
        deterministic(options.deterministic),
        process_group(options.device, options.timeout_seconds) as process,
        claim_run_dir(job.run_dir, job.config) as run,
        supervise(run, process) as supervisor,
    ):
        trainer = Trainer(job, process, run, supervisor)
        progress = trainer.fit()
        if process.is_main:
            monitor = trainer.stages.monitor(progress.stage, options.monitor)
            print(f"trained {progress.step} steps{progress.describe_best(monitor)}: {run.path}")


class Trainer:
    """Trains a job until it is finished; launched again it goes on at the exact next row.

    Args:
        job: what to train.
        process: this process.
        run: the run's directory, open.
        supervisor: to report to.
    """

    def __init__(
        self, job: TrainJob, process: Process, run: RunDir, supervisor: Supervisor
    ) -> None:
        self.job, self.process, self.run = job, process, run
        self.options, self.supervisor = job.trainer, supervisor
        data_warnings = job.check_data(process)
        self.train_loader = job.build_loader("train", process, shuffle=True)
        self.valid_loader = job.build_loader("valid", process, shuffle=False)
        sharded = job.build_sharded(process.device)
        self.feed = job.build_feed(process, self.train_loader, sharded)
        # each rank checks its own parts; all of them learn what is wrong before any training
        for loader in (self.valid_loader, self.feed.loader):
            agree(loader.check, DataError)
        self.trainable = trainable_of(sharded)
        self.stages = Stages(
            self.trainable,
            self.valid_loader,
            budget=self.feed.budget,
            device=process.device,
            seed=job.seed,
        )
        self.progress = Progress()
        self.guard = Guard(
            process=process,
            signals=supervisor.signals,
            loader=self.train_loader,
            schema=job.schema,
            debug=run.path / "debug",
        )
        self.writer = CheckpointWriter(
            run.checkpoints,
            keep=self.options.keep_checkpoints,
            asynchronous=self.options.async_checkpoint,
        )
        self._saved_step: int | None = None
        self._failed_saves = 0
        steps = sum(map(self._steps_of_stage, range(self.stages.count)))
        self.total_steps = min(steps, self.options.max_steps or steps)
        self.train_step = job.build_train_step(
            sharded, self.trainable, rank=process.rank, total_steps=steps
        )
        self.meter = Meter(process.device)
        self.profiler = StepProfiler(
            run.path / "profile", enabled=self.options.profile and process.is_main
        )
        self.plan = plan_to_json(sharded.plan)
        notices = [*data_warnings, *job.notices(), *self._resume()]
        self.log = RunLog(
            run.path,
            total_steps=self.total_steps,
            batch_size=job.loader.batch_size,
            resume_step=self.progress.step,
            enabled=process.is_main,
        )
        for notice in (*notices, describe_plan(sharded.plan)):
            self.log.say(notice)
        if process.is_main:
            write_plan(run.path, sharded.plan)
        supervisor.status.update(total_steps=self.total_steps, last_checkpoint=self._saved_step)

    def fit(self) -> Progress:
        """Trains to the end, and returns where that is.

        Raises:
            PreemptedError: a signal asked to stop; the state is saved.
        """
        try:
            self._train()
        except StopRequested as request:
            self._preempt(request)
        finally:
            self.supervisor.pulse.enter("ending", self.progress.step)
            self.profiler.close()
            self.writer.close()
            self.log.close()
        return self.progress

    def _train(self) -> None:
        if self.progress.step == 0:
            self._begin_stage(0)
        if self._owes_evaluation():
            self._evaluate()
        while not self._is_finished():
            if self._is_stage_over():
                self._begin_stage(self.progress.stage + 1)
            self._train_epoch()
        for warning in self.stages.finish():
            self.log.say(warning)
        if self._saved_step != self.progress.step:
            self._save()
        self._finish_saving()

    def _train_epoch(self) -> None:
        progress = self.progress
        for batch in self._batches():
            result = self.train_step(batch, progress.step)
            progress.step += 1
            progress.epoch_step += 1
            self.log.step()
            self._show_profile()
            with self.feed.paused():
                self.stages.after_step(progress.step)
            is_logged = progress.step % self.options.log_every_steps == 0
            if is_logged:
                self._log_training(result)
            self.guard.after_step(result.loss, progress.step, self._position, wait=is_logged)
            if self._owes_evaluation():
                self._evaluate()
            elif self._is_due(self.options.checkpoint_every_steps):
                self._save()
            if self._is_finished() or self._is_stage_over():
                break
        self._turn_epoch()

    def _show_profile(self) -> None:
        summary = self.profiler.step()
        if summary is not None:
            self.log.say(f"{summary}\nprofile: {self.profiler.folder}")

    def _batches(self) -> Iterator[list[RankingBatch]]:
        """The rest of the epoch, on the device; the pulse knows who waits for what."""
        progress, pulse = self.progress, self.supervisor.pulse
        batches = self.feed.batches(progress.epoch, progress.epoch_step)
        while True:
            pulse.enter("reading data", progress.step)
            batch = next(batches, None)
            if batch is None:
                return
            pulse.enter("in a training step", progress.step)
            yield batch

    @property
    def _position(self) -> int:
        """Steps since the beginning of the data."""
        return self.progress.epoch * self.train_loader.num_steps + self.progress.epoch_step

    def _owes_evaluation(self) -> bool:
        """Whether an evaluation is due now; one that was interrupted still is after a resume."""
        progress = self.progress
        return progress.last_evaluation != progress.step > 0 and (
            self._is_due(self.options.eval_every_steps)
            or progress.epoch_step == self.train_loader.num_steps
            or self._is_finished()
            or self._is_stage_over()
        )

    def _log_training(self, result: StepResult) -> None:
        names = ["loss", *(f"loss_{name}" for name in result.parts)]
        values = mean_over_ranks(torch.stack([result.loss, *result.parts.values()]))
        record = dict(zip(names, values.tolist(), strict=True))
        if not math.isfinite(record["loss"]):
            # the guard, which is asked next, says more about it
            return
        cost = self.meter.read(self.feed.wait_seconds)
        self.log.record("train", self.progress.step, record | self.train_step.report() | cost)
        for warning in self.stages.check():
            self.log.say(warning)

    def _evaluate(self) -> None:
        """Scores the validation split, remembers the best step and saves a checkpoint."""
        progress = self.progress
        self.supervisor.pulse.enter("evaluating", progress.step)
        with self.feed.paused():
            predictions = predict(
                self.trainable.model,
                self.valid_loader,
                self.job.schema,
                self.process.device,
                after_batch=self.guard.between_batches,
            )
        scores = compute_scores(predictions)
        with self.feed.paused():
            constraints = self.stages.feasibility()
        progress.last_evaluation = progress.step
        self.log.record("valid", progress.step, scores | constraints)
        monitor = self.stages.monitor(progress.stage, self.options.monitor)
        if monitor not in scores:
            is_own = monitor == self.options.monitor
            derived = "" if is_own else f", in this stage {monitor!r}"
            raise ValueError(
                f"trainer.monitor is {self.options.monitor!r}{derived}; the evaluation has "
                f"{', '.join(scores)}"
            )
        score = scores[monitor]
        shown = "undefined" if score is None else f"{score:.5f}"
        self.log.say(f"step {progress.step}: valid {monitor} {shown}{describe(constraints)}")
        is_feasible = all_met(constraints)
        if score is not None and self._improves(score, is_feasible):
            progress.best_score, progress.best_step = score, progress.step
            progress.best_is_feasible = is_feasible
            progress.bad_evaluations = 0
        else:
            progress.bad_evaluations += 1
        self._save()
        self._pause()

    def _improves(self, score: float, is_feasible: bool) -> bool:
        """Whether an evaluation is better than the best; one that meets the constraints first."""
        progress = self.progress
        if progress.best_score is None:
            return True
        if is_feasible != progress.best_is_feasible:
            return is_feasible
        if self.options.mode == "max":
            return score > progress.best_score
        return score < progress.best_score

    def _is_due(self, every_steps: int | None) -> bool:
        return every_steps is not None and self.progress.step % every_steps == 0

    def _is_finished(self) -> bool:
        is_last = self.progress.stage == self.stages.count - 1
        return self.progress.step >= self.total_steps or (is_last and self._is_stage_over())

    def _is_stage_over(self) -> bool:
        progress, patience = self.progress, self.options.patience
        stopped = patience is not None and progress.bad_evaluations >= patience
        end = progress.stage_start + self._steps_of_stage(progress.stage)
        return progress.step >= end or stopped

    def _steps_of_stage(self, stage: int) -> int:
        return self.stages.steps(
            stage, epochs=self.options.epochs, steps_per_epoch=self.train_loader.num_steps
        )

    def _turn_epoch(self) -> None:
        progress = self.progress
        if progress.epoch_step == self.train_loader.num_steps:
            progress.epoch, progress.epoch_step = progress.epoch + 1, 0

    def _begin_stage(self, stage: int) -> None:
        """Begins a stage, from the best weights of the one before if the objective asks for it."""
        progress = self.progress
        for warning in self.stages.finish():
            self.log.say(warning)
        # a run that was stopped at the end of an epoch is still there
        self._turn_epoch()
        best = progress.best_step
        if self.stages.restores_best and best not in (None, progress.step):
            assert best is not None
            self.writer.wait()
            load_checkpoint(checkpoint_path(self.run.checkpoints, best), self.trainable)
        upcoming = self.train_loader.batches(progress.epoch, progress.epoch_step)
        with self.feed.paused():
            self.stages.begin(stage, upcoming)
        progress.stage, progress.stage_start = stage, progress.step
        progress.best_step = progress.best_score = None
        progress.best_is_feasible, progress.bad_evaluations = False, 0
        if self.stages.count > 1:
            self.log.say(f"step {progress.step}: {self.stages.describe()}")
        # a dense optimizer has no state to save before its first step
        if progress.step > 0:
            self._save()

    def _save(self) -> None:
        """Saves a checkpoint, or begins to; a failure is final only if it keeps failing."""
        progress = self.progress
        self.guard.check(progress.step, self._position)
        self.supervisor.pulse.enter("saving a checkpoint", progress.step)
        state = {
            "progress": dataclasses.asdict(progress),
            "num_streams": self.train_loader.plan.num_streams,
            "batch_size": self.job.loader.batch_size,
            "plan": self.plan,
        }
        try:
            self.writer.save(progress.step, self.trainable, state, progress.best_step)
        except CheckpointError as error:
            self._failed_saves += 1
            if self._failed_saves > self.options.max_failed_saves:
                raise CheckpointError(
                    f"{error}. Mend that and launch the same command again: it goes on from the "
                    "last checkpoint"
                ) from error
            self.log.say(
                f"warning: {error}; training goes on (failed {self._failed_saves} times, "
                f"trainer.max_failed_saves is {self.options.max_failed_saves})"
            )
        else:
            self._saved_step, self._failed_saves = progress.step, 0
        self.supervisor.status.update(last_checkpoint=self.writer.saved_step)
        self._pause()

    def _pause(self) -> None:
        """Leaves the time until now out of the rates."""
        self.log.pause()
        self.meter.restart(self.feed.wait_seconds)

    def _finish_saving(self) -> None:
        """Waits until the last save is on the disk; there is no later one to make up for it."""
        self.writer.wait()
        if self._saved_step != self.progress.step:
            raise CheckpointError(
                f"the end of the run, step {self.progress.step}, could not be saved to "
                f"{self.run.checkpoints}; free space and launch the same command again: it goes on "
                "from the last checkpoint"
            )
        self.supervisor.status.update(last_checkpoint=self._saved_step)

    def _preempt(self, request: StopRequested) -> None:
        """Saves where the run is, if a save fits in the time that is left, and ends it."""
        step, limit = self.progress.step, self.options.preemption_seconds
        name = signal_name(request.signal)
        if broadcast_from_main(self.writer.seconds > limit):
            kept = "no checkpoint" if self._saved_step is None else f"step {self._saved_step}"
            self.writer.wait()
            raise PreemptedError(
                f"{name} at step {step}; not saved, because the last save took longer than "
                f"trainer.preemption_seconds={limit:g}. Launch the same command again to go on "
                f"from {kept}"
            )
        if self._saved_step != step:
            self._save()
        self._finish_saving()
        raise PreemptedError(
            f"{name} at step {step}, which is saved. Launch the same command again to go on"
        )

    def _resume(self) -> list[str]:
        path, problems = find_checkpoint(self.run.checkpoints)
        notices = [f"warning: skipped a damaged checkpoint: {problem}" for problem in problems]
        if path is not None:
            state = load_checkpoint(path, self.trainable)
            self.progress = Progress(**state["progress"])
            self.stages.resume(self.progress.stage)
            self._saved_step = self.writer.saved_step = self.progress.step
            notices.append(f"resuming {self.run.path} at step {self.progress.step}")
        elif self.job.warm_start is not None:
            notices += warm_start(
                self.job.warm_start, self.trainable, hashed=hashed_tables(self.job.embedding)
            )
        return notices
