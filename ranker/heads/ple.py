"""PLE, progressive layered extraction (Tang et al., RecSys 2020); one level is CGC."""

import torch
from torch import Tensor, nn

from ranker.modules.experts import ExpertGate, Experts, check_experts
from ranker.modules.mlp import Activation
from ranker.modules.ppnet import PPNetOptions
from ranker.modules.task_towers import TaskTowers, TowerOptions
from ranker.slots import FeatureLayout, HeadInputs


class PLE(nn.Module):
    """Levels of experts that belong to a task or to all, and a tower per task on the last level.

    On each level a task's gate mixes its own and the shared experts, by the task's output of the
    level below; the shared gate mixes *all* experts of the level, by the shared output below
    (section 4.2). The last level has no shared gate: nothing would read it.

    Args:
        input_dim: width of the features.
        tasks: tasks of the data set.
        layout: of the shared embedding.
        num_levels: number of levels; 1 is CGC.
        num_task_experts: experts of each task on each level.
        num_shared_experts: shared experts on each level.
        expert_units: widths of each expert.
        towers: what is predicted, and the towers.
        activation: in the experts.
        dropout: share of the experts' units dropped in training.
        ppnet: personalised gates in the towers.

    Raises:
        ValueError: there are no levels or no experts, or the experts have no layers.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        tasks: tuple[str, ...],
        layout: FeatureLayout,
        num_levels: int,
        num_task_experts: int,
        num_shared_experts: int,
        expert_units: list[int],
        towers: TowerOptions,
        activation: Activation = "relu",
        dropout: float = 0.0,
        ppnet: PPNetOptions | None = None,
    ) -> None:
        super().__init__()
        if num_levels < 1:
            raise ValueError(f"head.num_levels is {num_levels}; it must be at least 1")
        check_experts("head.num_task_experts", num_task_experts, expert_units)
        check_experts("head.num_shared_experts", num_shared_experts, expert_units)
        self.levels = nn.ModuleList(
            _Level(
                num_tasks=len(towers.names),
                num_task_experts=num_task_experts,
                num_shared_experts=num_shared_experts,
                input_dim=input_dim if level == 0 else expert_units[-1],
                hidden_units=expert_units,
                activation=activation,
                dropout=dropout,
                is_last=level == num_levels - 1,
            )
            for level in range(num_levels)
        )
        self.towers = TaskTowers(
            input_dim=input_dim,
            tower_dim=expert_units[-1],
            tasks=tasks,
            layout=layout,
            options=towers,
            ppnet=ppnet,
        )

    def forward(self, inputs: HeadInputs) -> dict[str, Tensor]:
        """Returns a logit [C] per task."""
        by_task = [inputs.features] * len(self.towers.names)
        shared: Tensor | None = inputs.features
        for level in self.levels:
            by_task, shared = level(by_task, shared)
        logits: dict[str, Tensor] = self.towers(by_task, inputs)
        return logits


class _Level(nn.Module):
    """One level: the tasks' and the shared experts, and the gates over them."""

    def __init__(
        self,
        *,
        num_tasks: int,
        num_task_experts: int,
        num_shared_experts: int,
        input_dim: int,
        hidden_units: list[int],
        activation: Activation,
        dropout: float,
        is_last: bool,
    ) -> None:
        super().__init__()

        def build_experts(num_experts: int) -> Experts:
            return Experts(
                num_experts=num_experts,
                input_dim=input_dim,
                hidden_units=hidden_units,
                activation=activation,
                dropout=dropout,
            )

        self.task_experts = nn.ModuleList(build_experts(num_task_experts) for _ in range(num_tasks))
        self.shared_experts = build_experts(num_shared_experts)
        visible = num_task_experts + num_shared_experts
        self.task_gates = nn.ModuleList(
            ExpertGate(input_dim=input_dim, num_experts=visible) for _ in range(num_tasks)
        )
        everything = num_tasks * num_task_experts + num_shared_experts
        self.shared_gate = (
            None if is_last else ExpertGate(input_dim=input_dim, num_experts=everything)
        )

    def forward(self, by_task: list[Tensor], shared: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Maps the level's inputs, [C, input_dim] each, to its outputs [C, hidden_units[-1]]."""
        own = [experts(x) for experts, x in zip(self.task_experts, by_task, strict=True)]
        common = self.shared_experts(shared)
        outputs = [
            gate(x, torch.cat([experts, common], dim=1))
            for gate, x, experts in zip(self.task_gates, by_task, own, strict=True)
        ]
        if self.shared_gate is None:
            return outputs, None
        return outputs, self.shared_gate(shared, torch.cat([*own, common], dim=1))
