"""Learning rates as a function of the step.

A factor depends on the step alone, so a schedule has no state: a run that goes on, on any number of
ranks, has the rates that it would have had.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

ScheduleKind = Literal["constant", "linear", "cosine", "step"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """Factor of the learning rate over the steps.

    Attributes:
        kind: after the warm-up, "constant" keeps the rate, "linear" and "cosine" lower it to
            `final_factor`, "step" multiplies it by `gamma` every `step_size` steps.
        warmup_steps: the rate grows linearly over so many first steps: 1/w, 2/w, ..., 1.
        decay_steps: step at which linear and cosine arrive, counted from the start of the run;
            null is the last step of all epochs (`trainer.max_steps` does not shorten it).
        final_factor: what linear and cosine arrive at.
        step_size: of step.
        gamma: of step.
    """

    kind: ScheduleKind = "constant"
    warmup_steps: int = 0
    decay_steps: int | None = None
    final_factor: float = 0.0
    step_size: int | None = None
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in get_args(ScheduleKind):
            raise ValueError(
                f"kind is {self.kind!r}; must be one of {', '.join(get_args(ScheduleKind))}"
            )
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if self.decay_steps is not None and self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"decay_steps ({self.decay_steps}) must be greater than warmup_steps "
                f"({self.warmup_steps}): the decay begins when the warm-up ends"
            )
        if not 0 <= self.final_factor <= 1:
            raise ValueError(f"final_factor must be in [0, 1], got {self.final_factor}")
        if (self.kind == "step") != (self.step_size is not None):
            raise ValueError(
                f"step_size is {self.step_size} and kind is {self.kind!r}; kind 'step' needs a "
                "step_size, no other has one"
            )
        if self.step_size is not None and self.step_size < 1:
            raise ValueError(f"step_size must be at least 1, got {self.step_size}")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], got {self.gamma}")

    def factor(self, step: int, total_steps: int) -> float:
        """Returns the factor of the rate at a step.

        Args:
            step: steps taken before.
            total_steps: of all epochs; where the decay ends if `decay_steps` does not say.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "step":
            assert self.step_size is not None
            factor: float = self.gamma ** ((step - self.warmup_steps) // self.step_size)
            return factor
        if self.kind == "constant":
            return 1.0
        end = self.decay_steps or total_steps
        done = min(1.0, (step - self.warmup_steps) / max(end - self.warmup_steps, 1))
        shape = 1 - done if self.kind == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final_factor + (1 - self.final_factor) * shape


class ScheduledRates:
    """Sets the learning rates of optimizers' parameter groups.

    A fused optimizer hands a new rate to its kernel at its next `zero_grad`, so the rates are set
    before that.

    Args:
        schedules: name of what follows it, the schedule, and the parameter groups that follow it,
            whose rates the factors multiply.
        total_steps: of all epochs.
    """

    def __init__(
        self,
        schedules: Sequence[tuple[str, ScheduleOptions, Sequence[dict[str, Any]]]],
        *,
        total_steps: int,
    ) -> None:
        self.total_steps = total_steps
        self._schedules = [
            (name, schedule, [(group, float(group["lr"])) for group in groups])
            for name, schedule, groups in schedules
        ]
        self._factors = {name: 1.0 for name, _, _ in schedules}

    def apply(self, step: int) -> None:
        """Sets the rates of the step that follows `step` steps."""
        for name, schedule, groups in self._schedules:
            factor = self._factors[name] = schedule.factor(step, self.total_steps)
            for group, rate in groups:
                group["lr"] = rate * factor

    def report(self) -> dict[str, float]:
        """Returns the factors of the schedules that move, by name of what they are for."""
        return {
            f"lr_factor_{name}": self._factors[name]
            for name, schedule, _ in self._schedules
            if schedule.kind != "constant" or schedule.warmup_steps
        }
