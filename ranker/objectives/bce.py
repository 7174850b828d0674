"""Binary cross entropy on logits, summed over tasks."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ranker.distributed import weighted_mean
from ranker.slots import TaskTargets


class BCE(nn.Module):
    """sum_t weight_t * mean_c [softplus(z) - y * z], over each task's rows of the global batch.

    Args:
        task_weights: weight of each task; tasks that are not named weigh 1.
    """

    def __init__(self, *, task_weights: dict[str, float] | None = None) -> None:
        super().__init__()
        self.task_weights = dict(task_weights or {})

    def forward(
        self, logits: Mapping[str, Tensor], targets: Mapping[str, TaskTargets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and one part per task.

        Raises:
            ValueError: a weight names a task that the head does not predict.
        """
        unknown = sorted(set(self.task_weights) - set(logits))
        if unknown:
            raise ValueError(
                f"objective.task_weights names {unknown[0]!r}; the head predicts "
                f"{', '.join(logits)}"
            )
        parts = {}
        for task, logit in logits.items():
            target = targets[task]
            # fp32, because small probabilities drown in bf16
            losses = F.binary_cross_entropy_with_logits(
                logit.float(), target.labels, reduction="none"
            )
            parts[task] = weighted_mean(losses, target.weights)
        loss = sum(
            (self.task_weights.get(task, 1.0) * part for task, part in parts.items()),
            0 * next(iter(parts.values())),
        )
        return loss, parts
