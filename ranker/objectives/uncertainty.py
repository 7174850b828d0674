"""Uncertainty weighting (Kendall, Gal and Cipolla, CVPR 2018)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ranker.modules.task_balancer import TaskBalancer
from ranker.slots import TaskTargets, WeightedObjective


class Uncertainty(TaskBalancer):
    """L = sum_t exp(-s_t) L_t + s_t / 2 with learned log variances s, from 0 (equation 10).

    The s are parameters: the dense optimizer moves them, at its learning rate and with its weight
    decay.

    Args:
        base: objective whose parts are the tasks' losses.
        tasks: parts of it.
        parts: for tasks whose loss is not the part of the same name, the parts it is made of.
    """

    def __init__(
        self,
        *,
        base: Callable[[], WeightedObjective],
        tasks: list[str],
        parts: dict[str, list[str]] | None = None,
    ) -> None:
        super().__init__(base=base, tasks=tasks, parts=parts)
        self.log_variances = nn.Parameter(torch.zeros(len(tasks)))

    def forward(
        self, logits: Mapping[str, Tensor], targets: Mapping[str, TaskTargets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss, which may be negative, and the parts of the base objective."""
        loss, parts = super().forward(logits, targets)
        return loss + self.log_variances.sum() / 2, parts

    def weigh(self, losses: Tensor) -> Tensor:
        """Returns exp(-s), with its gradient."""
        return torch.exp(-self.log_variances)

    def after_step(self) -> None:
        """Forgets the losses of the step; the gradient has moved the weights."""
        self.forget_losses()

    def report(self) -> dict[str, float]:
        """Returns the weights."""
        return self.weight_report(torch.exp(-self.log_variances.detach()))
