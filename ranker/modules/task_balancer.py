"""What objectives share that weigh the losses of another objective anew in every step."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ranker.distributed import sum_over_ranks, world_size
from ranker.slots import TaskTargets, WeightedObjective


@dataclasses.dataclass(frozen=True)
class TaskLosses:
    """The losses of the tasks on a batch.

    Attributes:
        losses: [T] this rank's shares of global means, detached.
        rows: [T] this rank's weight of rows with a label.
    """

    losses: Tensor
    rows: Tensor


class TaskBalancer(nn.Module, ABC):
    """L = sum_t w_t L_t, where L_t is the part of another objective that belongs to task t.

    A subclass says what the weights are. L_t is the sum of the task's parts with their weights in
    the base objective.

    Args:
        base: builds the objective whose parts are weighed.
        tasks: parts of the base objective, one per task.
        parts: for tasks whose loss is not the part of the same name, the parts it is made of.

    Raises:
        ValueError: there are fewer than two tasks, or one is there twice.
    """

    def __init__(
        self,
        *,
        base: Callable[[], WeightedObjective],
        tasks: list[str],
        parts: Mapping[str, list[str]] | None,
        option: str = "tasks",
    ) -> None:
        super().__init__()
        if len(tasks) < 2 or len(set(tasks)) < len(tasks):
            raise ValueError(
                f"objective.{option} is {tasks}; it must list two or more different tasks"
            )
        unknown = sorted(set(parts or {}) - set(tasks))
        if unknown:
            raise ValueError(
                f"objective.parts names {unknown[0]!r}; it must be one of {', '.join(tasks)}"
            )
        self.base = base()
        self.tasks, self.option = list(tasks), option
        self.parts_of = {task: list((parts or {}).get(task, [task])) for task in tasks}
        self._pending: list[TaskLosses] = []
        self._record: list[TaskLosses] | None = None

    def forward(
        self, logits: Mapping[str, Tensor], targets: Mapping[str, TaskTargets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and the parts of the base objective.

        Raises:
            ValueError: a task has no loss in the base objective, or a loss belongs to no task.
        """
        _, parts = self.base(logits, targets)
        self._check(parts)
        losses = torch.stack([self._loss_of(task, parts) for task in self.tasks])
        weights = self.weigh(losses)
        seen = TaskLosses(losses.detach(), self._rows(targets).to(losses))
        if self._record is not None:
            self._record.append(seen)
        elif self.training and torch.is_grad_enabled():
            self._pending.append(seen)
        return (weights.to(losses.dtype) * losses).sum(), parts

    @abstractmethod
    def weigh(self, losses: Tensor) -> Tensor:
        """Returns the weights [T] of the losses [T]; called in training and in evaluation."""

    @contextmanager
    def recording(self) -> Iterator[list[TaskLosses]]:
        """Collects the losses of all batches that are seen inside; none of them moves a weight."""
        self._record = []
        try:
            yield self._record
        finally:
            self._record = None

    def take_losses(self) -> tuple[Tensor, Tensor]:
        """Returns the losses [T] of the batches since the last call, and which tasks had rows [T].

        Means over the rows of all ranks, so that all ranks get the same. Every rank calls it.
        """
        losses, rows = reduce_losses(self._pending)
        self._pending.clear()
        total = rows.sum(0)
        return (losses * rows).sum(0) / total.clamp_min(torch.finfo(rows.dtype).tiny), total > 0

    def forget_losses(self) -> None:
        """Drops the losses of the batches since the last call, for who does not need them."""
        self._pending.clear()

    def weight_report(self, weights: Tensor) -> dict[str, float]:
        """Returns weights [T] under the names of the training record."""
        return {
            f"weight/{task}": value
            for task, value in zip(self.tasks, weights.tolist(), strict=True)
        }

    def _loss_of(self, task: str, parts: Mapping[str, Tensor]) -> Tensor:
        weights = self.base.weights
        summands = [weights.get(part, 1.0) * parts[part] for part in self.parts_of[task]]
        return torch.stack(summands).sum()

    def _rows(self, targets: Mapping[str, TaskTargets]) -> Tensor:
        """Weight of the rows [T] on which each task has a loss; all rows for a part of no task."""
        everywhere = torch.stack([target.weights.sum() for target in targets.values()]).amax()
        named = [
            next((part for part in self.parts_of[task] if part in targets), None)
            for task in self.tasks
        ]
        return torch.stack(
            [everywhere if name is None else targets[name].weights.sum() for name in named]
        )

    def _check(self, parts: Mapping[str, Tensor]) -> None:
        weights = self.base.weights
        known = [name for name in parts if weights.get(name, 1.0) != 0]
        used = [part for task in self.tasks for part in self.parts_of[task]]
        unknown = [name for name in used if name not in known]
        unused = [name for name in known if name not in used]
        if unknown:
            raise ValueError(
                f"objective.{self.option} names {unknown[0]!r}; objective.base has losses for "
                f"{', '.join(known)}"
            )
        if unused:
            raise ValueError(
                f"objective.{self.option} leaves out {unused[0]!r}, which objective.base has a "
                f"loss for; list it, give it to a task with objective.parts, or weigh it 0 in "
                "objective.base"
            )


def reduce_losses(seen: list[TaskLosses]) -> tuple[Tensor, Tensor]:
    """Returns the losses of batches over all ranks, [batches, T], and their weights of rows.

    Every rank calls it, with as many batches; there is one collective.
    """
    local = torch.stack([torch.stack([batch.losses, batch.rows]) for batch in seen])
    total = sum_over_ranks(local.float())
    return total[:, 0] / world_size(), total[:, 1]
