"""What an objective holds its tasks to, how it is measured, and how far it may be missed."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

Stream = Literal["train", "valid"]
Metric = Literal["loss", "auc", "gauc"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlackOptions:
    """How far a constraint may be missed: the largest of the three.

    Attributes:
        absolute: in units of the loss or metric.
        relative: as a share of the reference.
        standard_errors: in standard errors of the reference over batches.
    """

    absolute: float = 0.0
    relative: float = 0.001
    standard_errors: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"{name} is {value}; it must not be negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstraintOptions:
    """What is held, and how it is measured.

    Attributes:
        stream: "train" takes the losses of the training batches, as they were before their step;
            "valid" evaluates validation batches between steps and compares each with itself.
        every_steps: with "valid", steps between two batches.
        num_batches: batches that a reference is measured on, and that "valid" goes round.
        metrics: for tasks that are not held by their loss: auc or gauc, which need "valid".
        infeasible_updates: a multiplier that stays at its maximum for this many updates while its
            constraint is violated stops the run.
    """

    stream: Stream = "valid"
    every_steps: int = 5
    num_batches: int = 32
    metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)
    infeasible_updates: int = 100

    def __post_init__(self) -> None:
        for name in ("every_steps", "num_batches", "infeasible_updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_batches < 2:
            raise ValueError("num_batches is 1; a standard error needs 2 or more")
        if self.stream == "train" and any(metric != "loss" for metric in self.metrics.values()):
            raise ValueError(
                f"metrics is {dict(self.metrics)}; a metric is measured on the validation stream: "
                "set stream to valid"
            )


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean of batches [batches, T] and its standard error, [T] each.

    NaN values are left out; the error of less than two values is 0.
    """
    count = values.isfinite().sum(0)
    mean = values.nanmean(0)
    variance = (values - mean).square().nansum(0) / (count - 1).clamp_min(1)
    return mean, (variance / count.clamp_min(1)).sqrt()
