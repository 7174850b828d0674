"""ESMM's loss over the entire space (Ma et al., SIGIR 2018, equation 3)."""

from collections.abc import Mapping

from torch import Tensor, nn

from ranker.modules.task_loss import check_known, check_used, task_loss, weighted_sum
from ranker.slots import TaskTargets


class ESMM(nn.Module):
    """L = mean BCE(click, p_ctr) + mean BCE(click and conversion, p_ctr * p_cvr), all impressions.

    Conditional tasks (cvr) learn through the products that the head forms of them (ctcvr), on every
    impression; they have no loss of their own unless `conditional_weight` gives them one, on the
    rows where their condition holds. Every other task of the head has its loss, so longer chains
    need nothing else: ctr, ctr * cart_rate, ctr * cart_rate * buy_rate. The product arrives as a
    logit that is exact in log space (`modules.product_logit`), so the loss is the paper's without a
    probability that could underflow.

    Args:
        conditional: tasks that learn through products.
        conditional_weight: weight of their own loss; 0 is ESMM.
        task_weights: weight of each other task; 1 where not named.
    """

    def __init__(
        self,
        *,
        conditional: list[str],
        conditional_weight: float = 0.0,
        task_weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        if not conditional:
            raise ValueError(
                "objective.conditional is empty; without such a task use objective=bce"
            )
        both = sorted(set(conditional) & set(task_weights or {}))
        if both:
            raise ValueError(
                f"objective.task_weights names the conditional task {both[0]!r}; its weight is "
                "objective.conditional_weight"
            )
        self.conditional = list(conditional)
        self.weights = {**dict.fromkeys(conditional, conditional_weight), **(task_weights or {})}

    def forward(
        self, logits: Mapping[str, Tensor], targets: Mapping[str, TaskTargets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and one part per task.

        Raises:
            ValueError: an option names a task that the head does not predict.
        """
        check_known("conditional", self.conditional, logits)
        check_known("task_weights", self.weights, logits)
        check_used(logits, targets)
        parts = {task: task_loss(logit, targets[task]) for task, logit in logits.items()}
        return weighted_sum(parts, self.weights), parts
