"""Square AUC loss over all pairs in linear time, beside binary cross entropy."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from ranker.distributed import world_size
from ranker.modules.task_loss import check_known, check_used, task_loss, weighted_sum
from ranker.slots import TaskTargets


class SquareAUC(nn.Module):
    """L = sum_t weight_t BCE_t + auc_weight * sum_{t in tasks} mean over pairs (1 - (s+ - s-))^2.

    s is the probability. The mean over all pairs of a positive and a negative of the *global* batch
    equals (1 - (mean+ - mean-))^2 + Var+ + Var- (population variances, sample weights as counts).
    So it costs O(C) and one all-reduce of six numbers a task, and is the same on 1 and N ranks.
    Cross entropy keeps the probabilities calibrated. A batch without one of the classes adds
    nothing.
    This is the loss behind the minimax form of AUC maximisation (Ying et al., NeurIPS 2016,
    theorem 1).

    Args:
        tasks: tasks whose AUC is optimised.
        auc_weight: weight of the pairwise part.
        task_weights: weight of each task's cross entropy; 1 where not named.
    """

    def __init__(
        self,
        *,
        tasks: list[str],
        auc_weight: float,
        task_weights: dict[str, float] | None = None,
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
        """Returns the loss, the cross entropy of each task and the pairwise part of `tasks`.

        Raises:
            ValueError: an option names a task that the head does not predict.
        """
        check_known("tasks", self.tasks, logits)
        check_known("task_weights", self.task_weights, logits)
        check_used(logits, targets)
        parts = {task: task_loss(logit, targets[task]) for task, logit in logits.items()}
        for task in self.tasks:
            parts[f"{task}_auc"] = _mean_over_pairs(logits[task], targets[task])
        return weighted_sum(parts, self.weights), parts


def _mean_over_pairs(logit: Tensor, target: TaskTargets) -> Tensor:
    # in double, because variances are differences of sums
    score, label = torch.sigmoid(logit.double()), target.labels.double()
    by_class = target.weights.double() * torch.stack([label, 1 - label])  # [2, C]
    sums = torch.stack([by_class.sum(1), by_class @ score, by_class @ score.square()])
    if world_size() > 1:
        sums = all_reduce(sums)  # type: ignore[no-untyped-call]
    counts = sums[0].detach()
    mean, mean_square = sums[1:] / counts.clamp_min(torch.finfo(counts.dtype).tiny)
    variances = (mean_square - mean.square()).clamp_min(0)
    loss = (1 - (mean[0] - mean[1])).square() + variances.sum()
    return (loss * (counts > 0).all()).to(logit.dtype)
