"""Two-way partial AUC with smooth weights (Yang et al., ICML 2021; 2206.11655)."""

from typing import Literal, get_args

import torch
from torch import Tensor

from ranker.modules.ranking_objective import RankingObjective, class_sums
from ranker.slots import TaskTargets

Weighting = Literal["poly", "exp"]


class TwoWayAUC(RankingObjective):
    """mean over pairs of v+(s_i) v-(s_j) (1 - (s_i - s_j))^2 beside cross entropy; s a probability.

    The weights stress hard rows, which a partial AUC selects with a threshold: positives with low
    and negatives with high scores.

        poly   v+(s) = (1 - s)^gamma               v-(s) = s^gamma
        exp    v+(s) = 1 - exp(-gamma (1 - s))     v-(s) = 1 - exp(-gamma s)

    With x = 1 - s_i the square is x^2 + 2 x s_j + s_j^2, so the mean over all pairs of the global
    batch is made of six means over rows: O(C), one all-reduce, the same on 1 and N ranks. Public
    code has one number for the exponent and the margin; here the margin is 1. The paper warms
    up with a loss without weights; here cross entropy is there all the time. A batch without one of
    the classes adds nothing.

    Args:
        tasks: tasks whose partial AUC is optimised.
        auc_weight: weight of the pairwise part.
        weighting: "poly" or "exp".
        gamma: sharpness of the weights.
        one_way: v+ = 1, a partial AUC in the false positive rate only.
        task_weights: weight of each task's cross entropy; 1 where not named.

    Raises:
        ValueError: the weighting is unknown or gamma not positive.
    """

    def __init__(
        self,
        *,
        tasks: list[str],
        auc_weight: float,
        weighting: Weighting = "poly",
        gamma: float = 1.0,
        one_way: bool = False,
        task_weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, auc_weight=auc_weight, task_weights=task_weights)
        if weighting not in get_args(Weighting):
            raise ValueError(f"objective.weighting is {weighting!r}; must be poly or exp")
        if gamma <= 0:
            raise ValueError(f"objective.gamma is {gamma}; it must be positive")
        self.weighting, self.gamma, self.one_way = weighting, gamma, one_way

    def ranking_loss(self, task: str, logit: Tensor, target: TaskTargets) -> Tensor:
        """Returns the mean over pairs."""
        logit = logit.double()
        score, rest = torch.sigmoid(logit), torch.sigmoid(-logit)
        v_positive = torch.ones_like(rest) if self.one_way else self._weigh(rest)
        v_negative = self._weigh(score)
        counts, means = class_sums(
            target,
            *(v_positive * rest**power for power in range(3)),
            *(v_negative * score**power for power in range(3)),
        )
        positive, negative = means[:3, 0], means[3:, 1]
        loss = positive[2] * negative[0] + 2 * positive[1] * negative[1] + positive[0] * negative[2]
        return (loss * (counts > 0).all()).to(logit.dtype)

    def _weigh(self, hardness: Tensor) -> Tensor:
        """Maps how hard a row is, in (0, 1), to its weight."""
        if self.weighting == "poly":
            return hardness**self.gamma
        return -torch.expm1(-self.gamma * hardness)
