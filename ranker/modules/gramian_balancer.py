"""What objectives share that weigh tasks by the gradients at the shared features."""

from abc import abstractmethod

import torch
from torch import Tensor

from ranker.modules.feature_gradients import feature_gramian
from ranker.modules.task_balancer import TaskBalancer


class GramianBalancer(TaskBalancer):
    """L = sum_t w_t L_t with w a function of the Gramian of dL_t / d features.

    The features are the head's input: below it, all tasks share all weights. One backward through
    the head per task finds the weights, one backward of the weighted loss moves everything. In
    evaluation, where there are no gradients, the weights are those of the last training batch.

    A subclass gives `weights_of`. Weights of a batch without gradient are left as they were.
    """

    weights: Tensor

    def __init__(self, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.register_buffer("weights", torch.ones(len(self.tasks)))
        self._features: Tensor | None = None

    def watch(self, features: Tensor) -> None:
        """Remembers the head's input [C, F] until the losses are there."""
        self._features = features

    def weigh(self, losses: Tensor) -> Tensor:
        """Returns the weights of the tasks, new ones in training."""
        features, self._features = self._features, None
        if self.training and torch.is_grad_enabled():
            if features is None or not features.requires_grad:
                raise ValueError(
                    "this objective reads gradients at the head's input, which a batch in "
                    "micro-batches does not have at once; set trainer.accumulate_steps=1 and "
                    "loader.max_behaviors=null, or choose an objective that reads losses "
                    "(lagrangian, dwa, uncertainty)"
                )
            gramian = feature_gramian(losses, features)
            self.weights.copy_(self.weights_of(gramian, losses.detach()))
        # a copy, because the next batch of the same step may overwrite the buffer
        return self.weights.clone()

    @abstractmethod
    def weights_of(self, gramian: Tensor, losses: Tensor) -> Tensor:
        """Returns the weights [T] for a Gramian [T, T] and this rank's shares of the losses [T]."""

    def after_step(self) -> None:
        """Forgets the losses of the step; the gradients said all."""
        self.forget_losses()

    def report(self) -> dict[str, float]:
        """Returns the weights of the last batch."""
        return self.weight_report(self.weights)
