"""Area under the precision-recall curve, as a mean of smoothed average precisions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ranker.modules.gather_rows import gather_rows
from ranker.modules.ranking_objective import RankingObjective
from ranker.slots import TaskTargets


class AUPRC(RankingObjective):
    """1 - mean over positives i of (sum_{j positive} l_ij) / (sum_j l_ij), beside cross entropy.

    The precision at the score of a positive is the share of positives among the rows that score
    higher (Qi et al., NeurIPS 2021, equation 2); "higher" is smoothed to the squared hinge
    l_ij = max(0, margin - (s_i - s_j))^2 of probabilities. SOAP keeps moving averages of both sums
    for every positive of the data set, which a stream of impressions does not have; the sums here
    are over the global batch, whose average precision they estimate. A row's own l_ii = margin^2
    counts, so no sum is 0. Memory grows with positives times rows of the global batch. A batch
    without positives adds nothing.

    Args:
        tasks: tasks whose average precision is optimised.
        auc_weight: weight of this part.
        margin: of the hinge.
        task_weights: weight of each task's cross entropy; 1 where not named.

    Raises:
        ValueError: the margin is not positive.
    """

    def __init__(
        self,
        *,
        tasks: list[str],
        auc_weight: float,
        margin: float = 0.6,
        task_weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, auc_weight=auc_weight, task_weights=task_weights)
        if margin <= 0:
            raise ValueError(f"objective.margin is {margin}; it must be positive")
        self.margin = margin

    def ranking_loss(self, task: str, logit: Tensor, target: TaskTargets) -> Tensor:
        """Returns 1 less the mean average precision."""
        score = torch.sigmoid(logit.double() if logit.dtype == torch.float64 else logit.float())
        columns = [score, target.labels.to(score.dtype), target.weights.to(score.dtype)]
        score, label, weight = gather_rows(torch.stack(columns, dim=1)).unbind(1)
        chosen = ((label * weight) > 0).nonzero()[:, 0]
        if not len(chosen):
            return 0 * score.sum()
        higher = F.relu(self.margin - (score[chosen].unsqueeze(1) - score)).square() * weight
        precision = (higher * label).sum(1) / higher.sum(1)
        return 1 - (precision * weight[chosen]).sum() / weight[chosen].sum()
