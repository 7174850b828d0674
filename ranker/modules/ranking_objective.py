"""What objectives of the AUC family share: cross entropy beside them, and statistics of all ranks.

Cross entropy keeps probabilities calibrated: a ranking loss alone fixes their order and no more.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from ranker.distributed import world_size
from ranker.modules.task_loss import check_known, check_used, task_loss, weighted_sum
from ranker.slots import TaskTargets


class RankingObjective(nn.Module, ABC):
    """L = sum_t weight_t BCE_t + auc_weight * sum_{t in tasks} ranking_loss_t.

    Args:
        tasks: tasks whose ranking is optimised.
        auc_weight: weight of the ranking loss.
        task_weights: weight of each task's cross entropy; 1 where not named.

    Raises:
        ValueError: there are no tasks, or the weight is not positive.
    """

    def __init__(
        self, *, tasks: list[str], auc_weight: float, task_weights: dict[str, float] | None
    ) -> None:
        super().__init__()
        if not tasks:
            raise ValueError("objective.tasks is empty; without such a task use objective=bce")
        if auc_weight <= 0:
            raise ValueError(
                f"objective.auc_weight is {auc_weight}; it must be positive, use objective=bce for "
                "none"
            )
        self.tasks = list(tasks)
        self.task_weights = dict(task_weights or {})
        self.weights = {**self.task_weights, **{f"{task}_auc": auc_weight for task in tasks}}

    def forward(
        self, logits: Mapping[str, Tensor], targets: Mapping[str, TaskTargets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss, the cross entropy of each task and the ranking loss of `tasks`.

        Raises:
            ValueError: an option names a task that the head does not predict.
        """
        check_known("tasks", self.tasks, logits)
        check_known("task_weights", self.task_weights, logits)
        check_used(logits, targets)
        parts = {task: task_loss(logit, targets[task]) for task, logit in logits.items()}
        for task in self.tasks:
            parts[f"{task}_auc"] = self.ranking_loss(task, logits[task], targets[task])
        return weighted_sum(parts, self.weights), parts

    @abstractmethod
    def ranking_loss(self, task: str, logit: Tensor, target: TaskTargets) -> Tensor:
        """Returns the ranking loss of one task on the global batch, the same on all ranks."""


def global_sum(sums: Tensor) -> Tensor:
    """Returns the sum over all ranks, with gradient."""
    if world_size() > 1:
        sums = all_reduce(sums)  # type: ignore[no-untyped-call]
    return sums


def class_sums(target: TaskTargets, *columns: Tensor) -> tuple[Tensor, Tensor]:
    """Adds columns up by class over the global batch, in double.

    Args:
        target: of the task.
        columns: [C] each.

    Returns:
        Weight of the positives and of the negatives [2], without gradient; means [columns, 2].
    """
    label = target.labels.double()
    # a row for each class, [2, C]
    by_class = target.weights.double() * torch.stack([label, 1 - label])
    each = [by_class.sum(1), *(by_class @ column.double() for column in columns)]
    sums = global_sum(torch.stack(each))
    counts = sums[0].detach()
    return counts, sums[1:] / counts.clamp_min(torch.finfo(counts.dtype).tiny)
