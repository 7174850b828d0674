"""Square AUC loss over all pairs in linear time, beside binary cross entropy."""

import torch
from torch import Tensor

from ranker.modules.ranking_objective import RankingObjective, class_sums
from ranker.slots import TaskTargets


class SquareAUC(RankingObjective):
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
        super().__init__(tasks=tasks, auc_weight=auc_weight, task_weights=task_weights)

    def ranking_loss(self, task: str, logit: Tensor, target: TaskTargets) -> Tensor:
        """Returns the mean over pairs."""
        # in double, because variances are differences of sums
        score = torch.sigmoid(logit.double())
        counts, (mean, mean_square) = class_sums(target, score, score.square())
        variances = (mean_square - mean.square()).clamp_min(0)
        loss = (1 - (mean[0] - mean[1])).square() + variances.sum()
        return (loss * (counts > 0).all()).to(logit.dtype)
