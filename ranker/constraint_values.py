"""What the tasks that an objective holds are at present, on batches read for that alone."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ranker.budget import BehaviorBudget
from ranker.distributed import broadcast_from_main, gather_to_main
from ranker.metrics.auc import auc
from ranker.metrics.gauc import gauc
from ranker.modules.task_balancer import reduce_losses
from ranker.objectives.lagrangian import Lagrangian
from ranker.train_module import LossModule
from ranker_data.batch import RankingBatch
from ranker_data.loader import RankingLoader

Rows = Mapping[str, np.ndarray]


class ConstraintValues:
    """Measures losses and metrics of the tasks; every rank calls it, and gets the same.

    A batch that has too many behaviours is scored in parts; its losses are those of the whole.

    Args:
        model: sharded, from a batch to its loss, parts and logits.
        loss: of the model.
        objective: whose tasks are measured.
        valid_loader: of the validation split.
        budget: splits batches that have too many behaviours.
        device: of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossModule,
        objective: Lagrangian,
        *,
        valid_loader: RankingLoader,
        budget: BehaviorBudget,
        device: torch.device,
    ) -> None:
        self.model, self.loss, self.objective = model, loss, objective
        self.loader, self.budget, self.device = valid_loader, budget, device
        self.metrics = {
            name: metric
            for name, metric in objective.constraints.metrics.items()
            if metric != "loss"
        }
        self._stream: tuple[int, Iterator[RankingBatch]] | None = None

    @property
    def num_probes(self) -> int:
        """Validation batches that the constraints go round."""
        return min(self.objective.constraints.num_batches, self.loader.num_steps)

    def of_validation(self) -> Tensor:
        """Returns the values [batches, T] of the first validation batches, NaN where undefined."""
        return self._measure(itertools.islice(self.loader.batches(), self.num_probes))

    def of_probe(self, index: int) -> Tensor:
        """Returns the values [T] of one of them; taking them in turn is cheapest."""
        if self._stream is None or self._stream[0] != index:
            self._stream = (index, self.loader.batches(0, index))
        batch = next(self._stream[1])
        following = index + 1
        self._stream = (following, self._stream[1]) if following < self.num_probes else None
        return self._measure([batch])[0]

    def of_training(self, upcoming: Iterable[RankingBatch], seed: int) -> Tensor:
        """Returns the losses [batches, T] of training batches, with the model's dropout.

        Args:
            upcoming: the next batches; `constraints.num_batches` of them are read.
            seed: of the dropout.
        """
        batches = itertools.islice(upcoming, self.objective.constraints.num_batches)
        torch.manual_seed(seed)
        return self._measure(batches, training=True)

    @torch.no_grad()
    def _measure(self, batches: Iterable[RankingBatch], *, training: bool = False) -> Tensor:
        self.model.train(training)
        scored = []
        with self.objective.recording() as seen:
            for batch in batches:
                parts = self.budget(batch)
                logits = self._score(parts)
                scored.append([self._rows(name, logits, parts) for name in self.metrics])
        losses, rows = reduce_losses(seen)
        values = torch.where(rows > 0, losses, torch.nan)
        if self.metrics:
            gathered = gather_to_main(scored)
            metrics = list(self.metrics.values())
            found = None if gathered is None else metrics_of_batches(gathered, metrics)
            table = torch.tensor(broadcast_from_main(found), device=values.device)
            for column, name in enumerate(self.metrics):
                values[:, self.objective.tasks.index(name)] = table[:, column]
        return values

    def _score(self, parts: Sequence[RankingBatch]) -> dict[str, Tensor]:
        """Logits [C] of a batch in parts, whose losses the objective records, once."""
        moved = [part.to(self.device, non_blocking=True) for part in parts]
        if len(moved) == 1:
            logits: dict[str, Tensor] = self.model(moved[0])[2]
            return logits
        # with gradients to carry, of which there are none, the objective is not asked about a part
        self.loss.carried = {}
        try:
            outputs = [self.model(part)[2] for part in moved]
        finally:
            self.loss.carried = None
        logits = {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}
        self.objective(logits, self.loss.targets_of_parts(moved))
        return logits

    def _rows(self, task: str, logits: Mapping[str, Tensor], parts: Sequence[RankingBatch]) -> Rows:
        """What a metric of a task reads of this rank's rows."""
        targets = self.loss.targets_of_parts(parts)
        if task not in logits or task not in targets:
            raise ValueError(
                f"objective.constraints.metrics names {task!r}, which is no task of the head; it "
                f"predicts {', '.join(logits)}"
            )
        rows = targets[task].weights > 0
        group = torch.cat([getattr(part, self.loss.group) for part in parts])
        return {
            "logit": logits[task].float().cpu()[rows].numpy(),
            "label": targets[task].labels[rows].numpy(),
            "weight": targets[task].weights[rows].double().numpy(),
            "group": group[rows].numpy(),
        }


def metrics_of_batches(
    gathered: Sequence[Sequence[Sequence[Rows]]], metrics: Sequence[str]
) -> list[list[float]]:
    """Returns metrics [batches][metrics], NaN where undefined.

    Args:
        gathered: rows by rank, batch and metric.
        metrics: auc or gauc.
    """
    table = []
    for shares in zip(*gathered, strict=True):
        line = []
        for column, metric in enumerate(metrics):
            parts = [share[column] for share in shares]
            rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            value = (
                auc(rows["logit"], rows["label"], rows["weight"]).value
                if metric == "auc"
                else gauc(
                    rows["logit"], rows["label"], rows["group"], rows["weight"]
                ).impressions.value
            )
            line.append(float("nan") if value is None else float(value))
        table.append(line)
    return table
