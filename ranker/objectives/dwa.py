"""Dynamic weight average (Liu, Johns and Davison, CVPR 2019)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ranker.modules.task_balancer import TaskBalancer
from ranker.slots import WeightedObjective


class DWA(TaskBalancer):
    """w_t = T softmax_t(r_t / temperature), r_t = mean loss of the last window / of the one before.

    A task whose loss falls slowly weighs more. The paper's window is an epoch; here it is a number
    of steps, because one epoch may be all there is. The weights are 1 for the first two windows.

    Args:
        base: objective whose parts are the tasks' losses.
        tasks: parts of it.
        window_steps: steps that losses are averaged over.
        parts: for tasks whose loss is not the part of the same name, the parts it is made of.
        temperature: large values make the weights equal.

    Raises:
        ValueError: an option is not positive.
    """

    weights: Tensor
    sums: Tensor
    counts: Tensor
    before: Tensor
    steps: Tensor

    def __init__(
        self,
        *,
        base: Callable[[], WeightedObjective],
        tasks: list[str],
        window_steps: int,
        parts: dict[str, list[str]] | None = None,
        temperature: float = 2.0,
    ) -> None:
        super().__init__(base=base, tasks=tasks, parts=parts)
        for name, value in (("window_steps", window_steps), ("temperature", temperature)):
            if value <= 0:
                raise ValueError(f"objective.{name} is {value}; it must be positive")
        self.window_steps, self.temperature = window_steps, temperature
        self.register_buffer("weights", torch.ones(len(tasks)))
        self.register_buffer("sums", torch.zeros(len(tasks)))
        self.register_buffer("counts", torch.zeros(len(tasks)))
        # means of the last window; 0 before there is one
        self.register_buffer("before", torch.zeros(len(tasks)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def weigh(self, losses: Tensor) -> Tensor:
        """Returns the weights of the present window."""
        return self.weights

    @torch.no_grad()
    def after_step(self) -> None:
        """Adds the losses of the step, and moves the weights at the end of a window."""
        losses, known = self.take_losses()
        self.sums += losses * known
        self.counts += known
        self.steps += 1
        # computed at every step and mostly not taken: a look at the count would wait for a GPU
        ends = self.steps % self.window_steps == 0
        means = self.sums / self.counts.clamp_min(1)
        # a task without rows in a window says nothing about its speed
        ratios = torch.where((self.before > 0) & (means > 0), means / self.before, 1.0)
        moved = len(self.tasks) * torch.softmax(ratios / self.temperature, dim=0)
        self.weights.copy_(torch.where(ends & self.before.any(), moved, self.weights))
        self.before.copy_(torch.where(ends, means, self.before))
        for total in (self.sums, self.counts):
            total.masked_fill_(ends, 0)

    def report(self) -> dict[str, float]:
        """Returns the weights."""
        return self.weight_report(self.weights)
