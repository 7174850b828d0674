"""Prioritised tasks by Lagrange multipliers (after "No More Tuning", Cheng et al., AAAI 2025)."""

import math
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from ranker.modules.constraints import (
    ConstraintOptions,
    Metric,
    SlackOptions,
    mean_and_error,
)
from ranker.modules.dual_ascent import DualAscent, DualOptions
from ranker.modules.task_balancer import TaskBalancer
from ranker.slots import WeightedObjective

Mode = Literal["stepwise", "simultaneous", "weighted_sum"]


class Lagrangian(TaskBalancer):
    """L = (L_k + sum_{i<k} lambda_i L_i + w sum_{j>k} L_j) / (sum of these weights) in stage k.

    `stepwise`: stage k minimises task k subject to L_i <= c_i + slack_i for all tasks i of higher
    priority, where c_i is the value at the end of stage k-1. `simultaneous`: a first stage
    minimises the weighted sum of all, a second one the last task subject to all others; given
    `references` there is the second alone. `weighted_sum`: sum_t w_t L_t, no constraint.

    References and multipliers are buffers; `stage` is the run's progress. `ranker.stages` measures
    and begins stages; constraints on the training stream are moved by `after_step`.

    Args:
        base: objective whose parts are the tasks' losses.
        priority: the tasks, the most important first.
        mode: as above.
        parts: for tasks whose loss is not the part of the same name, the parts it is made of.
        weights: of the tasks in a weighted sum; 1 where not named.
        lower_weight: w, of each task below the one that a stage improves. 0 leaves them out until
            their stage; a small weight decides between equally good solutions in their favour.
        slack: how far a constraint may be missed.
        dual: how multipliers move.
        constraints: what is held, and how it is measured.
        references: values c_i to hold, by task, instead of measured ones (simultaneous only).
        stage_epochs: epochs of each stage, which may be parts of one, so that all stages share a
            single pass; null gives each `trainer.epochs`.
        rescale: divide by the sum of the weights, which keeps the learning rate bounded.
        restore_best: a stage begins from the best checkpoint of the one before, not from its last.
        monitors: what decides in the stage of a task which checkpoint is best, as task.metric; by
            default the metric of `trainer.monitor`, of the task itself.
    """

    joint: Tensor
    signs: Tensor
    references: Tensor
    slacks: Tensor
    held_out: Tensor
    held_out_slacks: Tensor

    def __init__(
        self,
        *,
        base: Callable[[], WeightedObjective],
        priority: list[str],
        mode: Mode = "stepwise",
        parts: dict[str, list[str]] | None = None,
        weights: dict[str, float] | None = None,
        lower_weight: float = 0.25,
        slack: SlackOptions | None = None,
        dual: DualOptions | None = None,
        constraints: ConstraintOptions | None = None,
        references: dict[str, float] | None = None,
        stage_epochs: list[float] | None = None,
        rescale: bool = True,
        restore_best: bool = True,
        monitors: dict[str, str] | None = None,
    ) -> None:
        super().__init__(base=base, tasks=priority, parts=parts, option="priority")
        self.mode, self.rescale, self.restore_best = mode, rescale, restore_best
        self.lower_weight = lower_weight
        self.slack = slack or SlackOptions()
        self.constraints = constraints or ConstraintOptions()
        self.given = dict(references or {})
        self.monitors = dict(monitors or {})
        self.stage_epochs = None if stage_epochs is None else list(stage_epochs)
        self._check_options(weights or {})
        count = len(priority)
        joint = torch.tensor([(weights or {}).get(task, 1.0) for task in priority])
        self.register_buffer("joint", joint / joint.sum(), persistent=False)
        self.stage = 0
        metrics = [self.metric_of(task) for task in range(count)]
        signs = torch.tensor([1.0 if metric == "loss" else -1.0 for metric in metrics])
        self.register_buffer("signs", signs, persistent=False)
        self.register_buffer("references", torch.zeros(count))
        self.register_buffer("slacks", torch.zeros(count))
        self.register_buffer("held_out", torch.zeros(self.constraints.num_batches, count))
        self.register_buffer("held_out_slacks", torch.zeros(count))
        self.ascent = DualAscent(count, dual or DualOptions())

    @property
    def num_stages(self) -> int:
        """How many stages a run has."""
        if self.mode == "stepwise":
            return len(self.tasks)
        return 2 if self.mode == "simultaneous" and not self.given else 1

    def minimized(self, stage: int) -> int | None:
        """Returns the task that a stage minimises; None for the weighted sum of all."""
        if self.mode == "stepwise":
            return stage
        constrained = self.mode == "simultaneous" and stage == self.num_stages - 1
        return len(self.tasks) - 1 if constrained else None

    def constrained(self, stage: int) -> list[int]:
        """Returns the tasks that a stage holds."""
        return list(range(self.minimized(stage) or 0))

    def metric_of(self, task: int) -> Metric:
        """Returns what a task is held by."""
        return self.constraints.metrics.get(self.tasks[task], "loss")

    def excess(self, values: Tensor, references: Tensor) -> Tensor:
        """Returns how much worse values are than references, [..., T], positive when worse."""
        return self.signs.to(values) * (values - references)

    @torch.no_grad()
    def begin_stage(self, stage: int, valid: Tensor, train: Tensor | None) -> None:
        """Begins a stage: sets what it holds, and starts its multipliers.

        Args:
            stage: from 0.
            valid: [batches, T] values of the first validation batches, NaN where undefined.
            train: [batches, T] likewise of training batches, if they are the constraints' stream.

        Raises:
            ValueError: a constrained task has no value on any of the batches.
        """
        self.stage = stage
        valid, mine = valid.clone(), valid if train is None else train
        for name, value in self.given.items():
            valid[:, self.tasks.index(name)] = value
        self.held_out.zero_()[: len(valid)].copy_(valid)
        mean, error = mean_and_error(valid)
        self.held_out_slacks.copy_(self._slack(mean, error))
        mean, error = mean_and_error(mine)
        for name, value in self.given.items():
            mean[self.tasks.index(name)] = value
        self.references.copy_(mean)
        self.slacks.copy_(self._slack(mean, error))
        for task in self.constrained(stage):
            if not math.isfinite(mean[task]):
                raise ValueError(
                    f"objective.priority holds {self.tasks[task]!r}, whose {self.metric_of(task)} "
                    "is undefined on every batch it is measured on; raise loader.batch_size or "
                    "objective.constraints.num_batches"
                )
        self.ascent.start(self._active())

    def weigh(self, losses: Tensor) -> Tensor:
        """Returns the weights of the tasks in the present stage."""
        minimized = self.minimized(self.stage)
        if minimized is None:
            return self.joint
        weights = self.ascent.effective() * self._active()
        # a slice is filled by the device; one element would be copied from the host
        weights[minimized : minimized + 1] = 1.0
        weights[minimized + 1 :] = self.lower_weight
        return weights / weights.sum() if self.rescale else weights

    def after_step(self) -> None:
        """Moves the multipliers by the losses of the step, if they are what is measured."""
        if self.constraints.stream == "train" and self.constrained(self.stage):
            self.ascend(*self.take_losses(), self.references, self.slacks)
        else:
            self.forget_losses()

    def ascend(self, values: Tensor, known: Tensor, references: Tensor, slacks: Tensor) -> None:
        """Moves the multipliers.

        Args:
            values: [T] of losses or metrics.
            known: [T] False where there is none.
            references: [T] what they are held to.
            slacks: [T].
        """
        violation = (self.excess(values, references) - slacks) / self._scale(references)
        self.ascent.update(violation, known & self._active())

    def report(self) -> dict[str, float]:
        """Returns the weights, and multiplier, value and reference of each constraint."""
        record = self.weight_report(self.weigh(self.ascent.multipliers))
        held = self.constrained(self.stage)
        excess = self.ascent.violations * self._scale(self.references) + self.slacks
        values = self.references + self.signs * excess
        for task in held:
            name, metric = self.tasks[task], self.metric_of(task)
            record[f"multiplier/{name}"] = float(self.ascent.multipliers[task])
            record[f"constraint/{name}/{metric}"] = float(values[task])
            record[f"constraint/{name}/reference"] = float(self.references[task])
        return record

    def _scale(self, references: Tensor) -> Tensor:
        return references.abs().clamp_min(1e-6)

    def _slack(self, references: Tensor, errors: Tensor) -> Tensor:
        slack = self.slack
        choices = (
            torch.full_like(references, slack.absolute),
            slack.relative * references.abs(),
            slack.standard_errors * errors.to(references),
        )
        return torch.stack(choices).amax(0)

    def _active(self) -> Tensor:
        order = torch.arange(len(self.tasks), device=self.references.device)
        return order < len(self.constrained(self.stage))

    def _check_options(self, weights: Mapping[str, float]) -> None:
        named = (
            ("weights", weights),
            ("references", self.given),
            ("monitors", self.monitors),
            ("constraints.metrics", self.constraints.metrics),
        )
        for option, values in named:
            unknown = sorted(set(values) - set(self.tasks))
            if unknown:
                raise ValueError(
                    f"objective.{option} names {unknown[0]!r}; objective.priority has "
                    f"{', '.join(self.tasks)}"
                )
        if self.mode not in get_args(Mode):
            raise ValueError(
                f"objective.mode is {self.mode!r}; must be one of {', '.join(get_args(Mode))}"
            )
        if min([1.0, *weights.values()]) < 0 or (
            all(weights.get(task, 1.0) == 0 for task in self.tasks)
        ):
            raise ValueError(
                f"objective.weights is {dict(weights)}; weights must not be negative, nor all 0"
            )
        if self.lower_weight < 0:
            raise ValueError(
                f"objective.lower_weight is {self.lower_weight}; it must not be negative"
            )
        missing = [task for task in self.tasks[:-1] if task not in self.given]
        if self.given and (self.mode != "simultaneous" or missing):
            raise ValueError(
                f"objective.references is {self.given}; with mode=simultaneous give one for each "
                f"of {', '.join(self.tasks[:-1])}, else leave it out"
            )
        epochs = self.stage_epochs
        if epochs is not None and (len(epochs) != self.num_stages or min(epochs) <= 0):
            raise ValueError(
                f"objective.stage_epochs is {epochs}; mode={self.mode} with {len(self.tasks)} "
                f"tasks has {self.num_stages} stages, each of more than 0 epochs"
            )
