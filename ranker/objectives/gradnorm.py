"""GradNorm (Chen et al., ICML 2018): gradients of equal size, larger for slower tasks."""

from collections.abc import Callable

import torch
from torch import Tensor

from ranker.distributed import mean_over_ranks
from ranker.modules.gramian_balancer import GramianBalancer
from ranker.slots import WeightedObjective


class GradNorm(GramianBalancer):
    """Moves w down the gradient of sum_t |w_t g_t - mean(w g) r_t^alpha|, then scales it to sum T.

    g_t is the length of dL_t / d features, r_t = (L_t / L_t at the start) over its mean; the
    target mean(w g) r_t^alpha is a constant of the gradient (algorithm 1).

    Args:
        base: objective whose parts are the tasks' losses.
        tasks: parts of it.
        parts: for tasks whose loss is not the part of the same name, the parts it is made of.
        alpha: how much larger the gradients of slower tasks are to be.
        lr: step of the weights, relative to the mean gradient length.

    Raises:
        ValueError: `lr` is not positive.
    """

    first_losses: Tensor

    def __init__(
        self,
        *,
        base: Callable[[], WeightedObjective],
        tasks: list[str],
        parts: dict[str, list[str]] | None = None,
        alpha: float = 1.5,
        lr: float = 0.025,
    ) -> None:
        super().__init__(base=base, tasks=tasks, parts=parts)
        if lr <= 0:
            raise ValueError(f"objective.lr is {lr}; it must be positive")
        self.alpha, self.lr = alpha, lr
        self.register_buffer("first_losses", torch.zeros(len(tasks)))

    def weights_of(self, gramian: Tensor, losses: Tensor) -> Tensor:
        """Returns the weights [T] after a step; they sum to T."""
        losses = mean_over_ranks(losses).to(self.weights)
        norms = gramian.diagonal().sqrt()
        # a batch on which a task has no rows tells nothing
        unknown = (norms <= 0).any() | (losses <= 0).any()
        kept = unknown | (self.first_losses > 0)
        self.first_losses.copy_(torch.where(kept, self.first_losses, losses))
        speed = losses / self.first_losses
        rate = speed / speed.mean()
        sizes = self.weights * norms
        gradient = torch.sign(sizes - sizes.mean() * rate**self.alpha) * norms / norms.mean()
        weights = (self.weights - self.lr * gradient).clamp_min(1e-3)
        # chosen on the device: to ask it here would wait for a GPU
        return torch.where(unknown, self.weights, weights * len(self.tasks) / weights.sum())
