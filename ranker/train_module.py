"""Model and objective as one module: a batch in, a loss and logits out."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ranker.model import RankingModel
from ranker.slots import FeatureObjective, Objective, TaskTargets
from ranker_data.batch import RankingBatch
from ranker_data.schema import Schema


class TrainModule(nn.Module):
    """The model with its objective: the unit that is sharded, trained and checkpointed.

    Args:
        model: from a batch to logits.
        objective: from logits and targets to the loss.
        schema: of the data set; says which label a task reads and on which rows.
    """

    def __init__(self, *, model: RankingModel, objective: Objective, schema: Schema) -> None:
        super().__init__()
        self.model = model
        self.loss = LossModule(objective=objective, schema=schema)
        if isinstance(objective, FeatureObjective):
            model.body.head.register_forward_pre_hook(self._show_features)

    def _show_features(self, _: nn.Module, inputs: Any) -> None:
        assert isinstance(self.loss.objective, FeatureObjective)
        self.loss.objective.watch(inputs[0].features)

    def forward(self, batch: RankingBatch) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Returns the loss, its named parts, and the logits [C] of each task."""
        logits, extra = self.model(batch)
        loss, parts = self.loss(logits, batch, extra)
        return loss, parts, logits


class LossModule(nn.Module):
    """Picks each task's target out of the batch and applies the objective.

    Attributes:
        carried: gradients of the logits that were computed before, on a batch of which this one is
            a part. While they are there, the loss is the one that has them, and the objective is
            not asked.
        share: of this batch in the losses of the model's own, while gradients are carried.
    """

    def __init__(self, *, objective: Objective, schema: Schema) -> None:
        super().__init__()
        self.objective = objective
        self.carried: dict[str, Tensor] | None = None
        self.share = 1.0
        self.group = schema.group
        columns = {label.name: i for i, label in enumerate(schema.labels)}
        self.columns = {
            task.name: (columns[task.label], columns[task.condition] if task.condition else None)
            for task in schema.tasks
        }

    def forward(
        self, logits: dict[str, Tensor], batch: RankingBatch, extra: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its named parts.

        Args:
            logits: of the tasks.
            batch: with the labels.
            extra: losses of the model's own, which are added to the objective.
        """
        if self.carried is not None:
            extra = {name: self.share * value for name, value in extra.items()}
            carried = [(logits[name] * value).sum() for name, value in self.carried.items()]
            zero = next(iter(logits.values())).new_zeros(())
            return sum([*carried, *extra.values()], zero), extra
        loss, parts = self.objective(logits, self.targets(batch))
        return sum(extra.values(), loss), {**parts, **extra}

    def targets(self, batch: RankingBatch) -> dict[str, TaskTargets]:
        """Returns the target of each task."""
        return {name: self.target(name, batch) for name in self.columns}

    def targets_of_parts(self, parts: Sequence[RankingBatch]) -> dict[str, TaskTargets]:
        """Returns the target of each task on a batch that comes in parts."""
        found = [self.targets(part) for part in parts]
        names = [field.name for field in dataclasses.fields(TaskTargets)]
        return {
            task: TaskTargets(
                **{name: torch.cat([getattr(one[task], name) for one in found]) for name in names}
            )
            for task in found[0]
        }

    def target(self, task: str, batch: RankingBatch) -> TaskTargets:
        """Returns labels and weights of a task; rows outside its space weigh 0."""
        label, condition = self.columns[task]
        weights = batch.weights * batch.label_mask[:, label]
        if condition is not None:
            weights = weights * batch.label_mask[:, condition] * batch.labels[:, condition]
        return TaskTargets(labels=batch.labels[:, label], weights=weights)


def loss_module(model: nn.Module) -> LossModule:
    """Returns the loss inside a model, sharded or not."""
    return next(module for module in model.modules() if isinstance(module, LossModule))


def ranking_model(sharded: nn.Module) -> RankingModel:
    """Returns the model inside a `TrainModule` that is under `DistributedModelParallel`."""
    module = sharded.module
    assert isinstance(module, TrainModule)
    return module.model
