"""Model and objective as one module: a batch in, a loss and logits out."""

from torch import Tensor, nn

from ranker.model import RankingModel
from ranker.slots import Objective, TaskTargets
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

    def forward(self, batch: RankingBatch) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Returns the loss, its named parts, and the logits [C] of each task."""
        logits = self.model(batch)
        loss, parts = self.loss(logits, batch)
        return loss, parts, logits


class LossModule(nn.Module):
    """Picks each task's target out of the batch and applies the objective."""

    def __init__(self, *, objective: Objective, schema: Schema) -> None:
        super().__init__()
        self.objective = objective
        columns = {label.name: i for i, label in enumerate(schema.labels)}
        self.columns = {
            task.name: (columns[task.label], columns[task.condition] if task.condition else None)
            for task in schema.tasks
        }

    def forward(
        self, logits: dict[str, Tensor], batch: RankingBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its named parts."""
        return self.objective(logits, {name: self.target(name, batch) for name in self.columns})

    def target(self, task: str, batch: RankingBatch) -> TaskTargets:
        """Returns labels and weights of a task; rows outside its space weigh 0."""
        label, condition = self.columns[task]
        weights = batch.weights * batch.label_mask[:, label]
        if condition is not None:
            weights = weights * batch.label_mask[:, condition] * batch.labels[:, condition]
        return TaskTargets(labels=batch.labels[:, label], weights=weights)
