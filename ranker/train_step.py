"""One training step: forward, backward and the optimizers."""

import dataclasses

import torch
from torch import Tensor

from ranker.checkpoint import Trainable
from ranker_data.batch import RankingBatch


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a step reports.

    Attributes:
        loss: scalar, detached; this rank's share of the global mean (`distributed.weighted_mean`).
        parts: its named summands, detached likewise.
    """

    loss: Tensor
    parts: dict[str, Tensor]


class TrainStep:
    """Takes one step on a batch.

    Args:
        trainable: the sharded model and its optimizers.
        seed: of the run.
        rank: of this process.
    """

    def __init__(self, trainable: Trainable, *, seed: int, rank: int) -> None:
        self.trainable = trainable
        self.seed, self.rank = seed, rank

    def __call__(self, batch: RankingBatch, step: int) -> StepResult:
        """Moves the weights along the gradient of the loss on a batch.

        Args:
            batch: this rank's share of the global batch, on the model's device.
            step: steps taken before. Dropout draws depend on it, so that a resumed run draws like
                an uninterrupted one.
        """
        trainable = self.trainable
        torch.manual_seed(hash((self.seed, step, self.rank)) % 2**63)
        trainable.model.train()
        trainable.optimizer.zero_grad()
        loss, parts, _ = trainable.model(batch)
        loss.backward()
        trainable.optimizer.step()
        return StepResult(loss.detach(), {name: part.detach() for name, part in parts.items()})
