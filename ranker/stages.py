"""The stages of a run whose objective holds some tasks while it improves another.

A plain objective is a run of one stage. Here constraints are measured: references when a stage
begins, violations on validation batches between steps, and on all of them at an evaluation. The
multipliers that follow live in the objective.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ranker.checkpoint import Trainable
from ranker.distributed import broadcast_from_main, gather_to_main
from ranker.exit_codes import InfeasibleError
from ranker.metrics.auc import auc
from ranker.metrics.gauc import gauc
from ranker.modules.task_balancer import reduce_losses
from ranker.objectives.lagrangian import Lagrangian, mean_and_error
from ranker.train_module import loss_module
from ranker_data.batch import RankingBatch
from ranker_data.loader import RankingLoader

# of a two-sided 95 % interval
_Z = 1.96


class Stages:
    """What a run does stage by stage.

    Args:
        trainable: the sharded model.
        valid_loader: of the split on which constraints are verified.
        device: of the model.
        seed: of the run.
    """

    def __init__(
        self, trainable: Trainable, valid_loader: RankingLoader, *, device: torch.device, seed: int
    ) -> None:
        self.model, self.loader = trainable.model, valid_loader
        self.device, self.seed = device, seed
        self.loss = loss_module(trainable.model)
        objective = self.loss.objective
        self.objective = objective if isinstance(objective, Lagrangian) else None
        self._stream: tuple[int, Iterator[RankingBatch]] | None = None
        self._warned: set[str] = set()

    @property
    def count(self) -> int:
        """How many stages there are."""
        return 1 if self.objective is None else self.objective.num_stages

    @property
    def restores_best(self) -> bool:
        """Whether a stage begins from the best checkpoint of the one before."""
        return self.objective is not None and self.objective.restore_best

    def epochs(self, stage: int, epochs: int) -> int:
        """Returns the epochs of a stage; `epochs` is the trainer's."""
        lengths = None if self.objective is None else self.objective.stage_epochs
        return epochs if lengths is None else lengths[stage]

    def monitor(self, stage: int, monitor: str) -> str:
        """Returns which metric of a stage decides what is best; `monitor` is the trainer's."""
        task = None if self.objective is None else self.objective.minimized(stage)
        if self.objective is None or task is None:
            return monitor
        name = self.objective.tasks[task]
        return self.objective.monitors.get(name, f"{name}.{monitor.rpartition('.')[2]}")

    def resume(self, stage: int) -> None:
        """Goes on in a stage whose tensors were loaded."""
        if self.objective is not None:
            self.objective.stage = stage

    def begin(self, stage: int, upcoming: Iterator[RankingBatch]) -> None:
        """Begins a stage: measures its references with the present weights.

        Args:
            stage: from 0.
            upcoming: the next training batches; some are read for references on them.
        """
        objective = self.objective
        if objective is None:
            return
        constraints, train = objective.constraints, None
        if objective.constrained(stage):
            valid = self.measure(0, constraints.num_batches)
            if constraints.stream == "train":
                train = self._measure_train(upcoming, stage)
            objective.begin_stage(stage, valid, train)
        else:
            objective.stage = stage
        self._warned.clear()

    def after_step(self, step: int) -> None:
        """Moves the multipliers by a validation batch, if one is due after `step` steps."""
        objective = self.objective
        if objective is None or objective.constraints.stream != "valid":
            return
        every = objective.constraints.every_steps
        if step % every or not objective.constrained(objective.stage):
            return
        index = (step // every - 1) % self._num_probes
        values = self._values([self._probe(index)])[0]
        reference = objective.held_out[index]
        known = (values - reference).isfinite()
        objective.ascend(values.nan_to_num(), known, reference.nan_to_num(), objective.slacks)

    def check(self) -> list[str]:
        """Returns warnings that are new.

        Raises:
            InfeasibleError: a multiplier has been at its maximum for too long.
        """
        objective = self.objective
        if objective is None or not objective.constrained(objective.stage):
            return []
        found = []
        at_max = objective.ascent.updates_at_max.tolist()
        for task in objective.constrained(objective.stage):
            name, most = objective.tasks[task], objective.ascent.options.max
            if at_max[task] >= objective.constraints.infeasible_updates:
                raise InfeasibleError(self._describe_infeasible(task))
            if at_max[task] > 0 and name not in self._warned:
                self._warned.add(name)
                found.append(
                    f"warning: the multiplier of {name} has reached objective.dual.max ({most:g}) "
                    "and its constraint is still violated; it may be infeasible"
                )
        return found

    def finish(self) -> list[str]:
        """Returns what should be said at the end of a stage."""
        objective = self.objective
        if objective is None:
            return []
        active = objective.ascent.active_updates.tolist()
        moved = objective.ascent.updates.tolist()
        return [
            f"warning: the constraint on {objective.tasks[task]} was never active in stage "
            f"{objective.stage + 1}: its multiplier stayed 0. The tasks may not be in conflict, or "
            "objective.slack is too wide"
            for task in objective.constrained(objective.stage)
            if moved[task] and not active[task]
        ]

    def feasibility(self) -> dict[str, float]:
        """Measures the constraints on validation batches; every rank calls it.

        Returns:
            For each constrained task, relative to its reference: how much worse it is, the ends of
            a 95 % interval of paired batch differences, the slack, and whether it is met: the
            interval reaches into the slack, so a violation is not shown.
        """
        objective = self.objective
        if objective is None or not objective.constrained(objective.stage):
            return {}
        values = self.measure(0, self._num_probes)
        held_out = objective.held_out[: len(values)]
        mean, error = mean_and_error(objective.excess(values, held_out))
        scale = held_out.nanmean(0).abs()
        record = {}
        for task in objective.constrained(objective.stage):
            excess, spread = float(mean[task] / scale[task]), float(error[task] / scale[task])
            slack = float(objective.held_out_slacks[task] / scale[task])
            key = f"held_out/{objective.tasks[task]}"
            record[f"{key}/excess"] = excess
            record[f"{key}/excess_low"] = excess - _Z * spread
            record[f"{key}/excess_high"] = excess + _Z * spread
            record[f"{key}/slack"] = slack
            record[f"{key}/met"] = float(excess - _Z * spread <= slack)
        return record

    def measure(self, first: int, count: int) -> Tensor:
        """Returns the values [batches, T] of validation batches, NaN where undefined."""
        return self._values(itertools.islice(self.loader.batches(0, first), count))

    @property
    def _num_probes(self) -> int:
        assert self.objective is not None
        return min(self.objective.constraints.num_batches, self.loader.num_steps)

    def _probe(self, index: int) -> RankingBatch:
        """Returns one validation batch; reading them in turn is cheapest."""
        if self._stream is None or self._stream[0] != index:
            self._stream = (index, self.loader.batches(0, index))
        batch = next(self._stream[1])
        following = index + 1
        self._stream = (following, self._stream[1]) if following < self._num_probes else None
        return batch

    @torch.no_grad()
    def _values(self, batches: Iterable[RankingBatch]) -> Tensor:
        """Evaluates batches: the value of each task's constraint on each, the same on all ranks."""
        objective = self.objective
        assert objective is not None
        self.model.eval()
        scored = []
        metrics = {
            name: metric
            for name, metric in objective.constraints.metrics.items()
            if metric != "loss"
        }
        with objective.recording() as seen:
            for batch in batches:
                _, _, logits = self.model(batch.to(self.device, non_blocking=True))
                scored.append([self._rows(name, logits, batch) for name in metrics])
        losses, rows = reduce_losses(seen)
        values = torch.where(rows > 0, losses, torch.nan)
        gathered = gather_to_main(scored) if metrics else None
        found = None if gathered is None else _batch_metrics(gathered, list(metrics.values()))
        if metrics:
            table = torch.tensor(broadcast_from_main(found), device=values.device)
            for column, name in enumerate(metrics):
                values[:, objective.tasks.index(name)] = table[:, column]
        return values

    def _rows(
        self, task: str, logits: dict[str, Tensor], batch: RankingBatch
    ) -> dict[str, np.ndarray]:
        if task not in logits or task not in self.loss.columns:
            raise ValueError(
                f"objective.constraints.metrics names {task!r}, which is no task of the head; it "
                f"predicts {', '.join(logits)}"
            )
        target = self.loss.target(task, batch)
        rows = target.weights > 0
        return {
            "logit": logits[task].float().cpu()[rows].numpy(),
            "label": target.labels[rows].numpy(),
            "weight": target.weights[rows].double().numpy(),
            "group": getattr(batch, self.loss.group)[rows].numpy(),
        }

    @torch.no_grad()
    def _measure_train(self, upcoming: Iterator[RankingBatch], stage: int) -> Tensor:
        """Returns the losses [batches, T] of the next training batches, with their dropout."""
        assert self.objective is not None
        self.model.train()
        torch.manual_seed(hash((self.seed, stage)) % 2**63)
        with self.objective.recording() as seen:
            for batch in itertools.islice(upcoming, self.objective.constraints.num_batches):
                self.model(batch.to(self.device, non_blocking=True))
        losses, rows = reduce_losses(seen)
        return torch.where(rows > 0, losses, torch.nan)

    def describe(self) -> str:
        """Returns what the present stage does, in words."""
        objective = self.objective
        if objective is None:
            return "one stage, no constraints"
        stage = objective.stage
        task = objective.minimized(stage)
        goal = "the weighted sum of all tasks" if task is None else objective.tasks[task]
        held = "".join(
            f"; holds {objective.tasks[i]} {objective.metric_of(i)} at "
            f"{float(objective.references[i]):.5f}, slack {float(objective.slacks[i]):.2g}"
            for i in objective.constrained(stage)
        )
        return f"stage {stage + 1} of {self.count}: improves {goal}{held}"

    def _describe_infeasible(self, task: int) -> str:
        objective = self.objective
        assert objective is not None
        name, record = objective.tasks[task], objective.report()
        metric = objective.metric_of(task)
        return (
            f"the constraint on {name} cannot be met: its {metric} is "
            f"{record[f'constraint/{name}/{metric}']:.5f}, to be held at "
            f"{float(objective.references[task]):.5f} with slack "
            f"{float(objective.slacks[task]):.2g}, and its multiplier has been at "
            f"objective.dual.max ({objective.ascent.options.max:g}) for "
            f"{int(objective.ascent.updates_at_max[task])} updates. Give more slack "
            "(objective.slack), a reference that was reached (objective.references), or a lower "
            "learning rate"
        )


def _batch_metrics(
    gathered: "Sequence[Sequence[Sequence[dict[str, np.ndarray]]]]", metrics: Sequence[str]
) -> list[list[float]]:
    """Metrics [batches][metrics] of rows that are spread over ranks; NaN where undefined."""
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


def all_met(constraints: Mapping[str, float]) -> bool:
    """Whether all constraints of `Stages.feasibility` are met."""
    return all(value == 1 for key, value in constraints.items() if key.endswith("/met"))


def describe(constraints: Mapping[str, float]) -> str:
    """Returns the constraints of `Stages.feasibility` in words, to be appended to a line."""
    return "".join(
        f"; {name}: {constraints[f'held_out/{name}/excess']:+.2%} of its reference, "
        + ("constraint met" if met else "constraint not met")
        for key, met in constraints.items()
        if key.endswith("/met")
        for name in [key.split("/")[1]]
    )
