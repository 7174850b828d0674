"""The stages of a run whose objective holds some tasks while it improves another.

A plain objective is a run of one stage. Here constraints are measured: references when a stage
begins, violations on validation batches between steps, and on all of them at an evaluation. The
multipliers that follow live in the objective.
"""

from collections.abc import Iterator, Mapping

import torch

from ranker.budget import BehaviorBudget
from ranker.checkpoint import Trainable
from ranker.constraint_values import ConstraintValues
from ranker.exit_codes import InfeasibleError
from ranker.modules.constraints import mean_and_error
from ranker.objectives.lagrangian import Lagrangian
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
        budget: of behaviours in a batch.
        device: of the model.
        seed: of the run.
    """

    def __init__(
        self,
        trainable: Trainable,
        valid_loader: RankingLoader,
        *,
        budget: BehaviorBudget,
        device: torch.device,
        seed: int,
    ) -> None:
        self.seed = seed
        loss = loss_module(trainable.model)
        self.objective = loss.objective if isinstance(loss.objective, Lagrangian) else None
        self.values: ConstraintValues | None = None
        if self.objective is not None:
            self.values = ConstraintValues(
                trainable.model,
                loss,
                self.objective,
                valid_loader=valid_loader,
                budget=budget,
                device=device,
            )
        self._warned: set[str] = set()

    @property
    def count(self) -> int:
        """How many stages there are."""
        return 1 if self.objective is None else self.objective.num_stages

    @property
    def restores_best(self) -> bool:
        """Whether a stage begins from the best checkpoint of the one before."""
        return self.objective is not None and self.objective.restore_best

    def steps(self, stage: int, *, epochs: int, steps_per_epoch: int) -> int:
        """Returns the length of a stage; `epochs` is the trainer's."""
        lengths = None if self.objective is None else self.objective.stage_epochs
        length = epochs if lengths is None else lengths[stage]
        # rounded down, so that stages that share an epoch end within it; 0.29 * 100 is 28.999...
        return max(1, int(length * steps_per_epoch + 1e-6))

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
        objective, values = self.objective, self.values
        if objective is None or values is None:
            return
        if objective.constrained(stage):
            train = None
            if objective.constraints.stream == "train":
                train = values.of_training(upcoming, hash((self.seed, stage)) % 2**63)
            objective.begin_stage(stage, values.of_validation(), train)
        else:
            objective.stage = stage
        self._warned.clear()

    def after_step(self, step: int) -> None:
        """Moves the multipliers by a validation batch, if one is due after `step` steps."""
        objective, probes = self.objective, self.values
        if objective is None or probes is None or objective.constraints.stream != "valid":
            return
        every = objective.constraints.every_steps
        if step % every or not objective.constrained(objective.stage):
            return
        index = (step // every - 1) % probes.num_probes
        values = probes.of_probe(index)
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
            f"{objective.stage + 1}: nothing violated it. The tasks may not be in "
            "conflict, or objective.slack is too wide"
            for task in objective.constrained(objective.stage)
            if moved[task] and not active[task]
        ]

    def feasibility(self) -> dict[str, float]:
        """Measures the constraints on validation batches; every rank calls it.

        Returns:
            For each constrained task, relative to its reference: how much worse it is, the ends of
            a 95 % interval of paired batch differences, the slack, and whether it is met: the
            interval reaches into the slack, so a violation is not shown. Once multipliers moved,
            also the share of updates that found it violated, and how long it is at its maximum.
        """
        objective = self.objective
        if objective is None or self.values is None:
            return {}
        if not objective.constrained(objective.stage):
            return {}
        values = self.values.of_validation()
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
            ascent = objective.ascent
            if ascent.updates[task]:
                record[f"{key}/active"] = float(ascent.active_updates[task] / ascent.updates[task])
                record[f"{key}/at_max"] = float(ascent.updates_at_max[task])
        return record

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
