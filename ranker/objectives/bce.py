"""Binary cross entropy on logits, summed over tasks."""

from collections.abc import Mapping

from torch import Tensor, nn

from ranker.modules.task_loss import check_known, check_used, task_loss, weighted_sum
from ranker.slots import TaskTargets


class BCE(nn.Module):
    """sum_t weight_t * mean_c [softplus(z) - y * z], over each task's rows of the global batch.

    Args:
        task_weights: weight of each task; tasks that are not named weigh 1.
    """

    def __init__(self, *, task_weights: dict[str, float] | None = None) -> None:
        super().__init__()
        self.weights = dict(task_weights or {})

    def forward(
        self, logits: Mapping[str, Tensor], targets: Mapping[str, TaskTargets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and one part per task.

        Raises:
            ValueError: a weight names a task that the head does not predict.
        """
        check_known("task_weights", self.weights, logits)
        check_used(logits, targets)
        parts = {task: task_loss(logit, targets[task]) for task, logit in logits.items()}
        return weighted_sum(parts, self.weights), parts
