"""MMoE, multi-gate mixture of experts (Ma et al., KDD 2018, section 4)."""

from torch import Tensor, nn

from ranker.modules.experts import ExpertGate, Experts, check_experts
from ranker.modules.mlp import Activation
from ranker.modules.ppnet import PPNetOptions
from ranker.modules.task_towers import TaskTowers, TowerOptions
from ranker.slots import FeatureLayout, HeadInputs


class MMoE(nn.Module):
    """logit_t = tower_t(sum_e softmax(W_t x)_e f_e(x)): shared experts, a linear gate per task.

    Args:
        input_dim: width of the features.
        tasks: tasks of the data set.
        layout: of the shared embedding.
        num_experts: number of experts.
        expert_units: widths of each expert.
        towers: what is predicted, and the towers.
        activation: in the experts.
        dropout: share of the experts' units dropped in training.
        ppnet: personalised gates in the towers.

    Raises:
        ValueError: there are no experts, or they have no layers.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        tasks: tuple[str, ...],
        layout: FeatureLayout,
        num_experts: int,
        expert_units: list[int],
        towers: TowerOptions,
        activation: Activation = "relu",
        dropout: float = 0.0,
        ppnet: PPNetOptions | None = None,
    ) -> None:
        super().__init__()
        check_experts("head.num_experts", num_experts, expert_units)
        self.experts = Experts(
            num_experts=num_experts,
            input_dim=input_dim,
            hidden_units=expert_units,
            activation=activation,
            dropout=dropout,
        )
        self.gates = nn.ModuleList(
            ExpertGate(input_dim=input_dim, num_experts=num_experts) for _ in towers.names
        )
        self.towers = TaskTowers(
            input_dim=input_dim,
            tower_dim=self.experts.output_dim,
            tasks=tasks,
            layout=layout,
            options=towers,
            ppnet=ppnet,
        )

    def forward(self, inputs: HeadInputs) -> dict[str, Tensor]:
        """Returns a logit [C] per task."""
        experts = self.experts(inputs.features)
        mixed = [gate(inputs.features, experts) for gate in self.gates]
        logits: dict[str, Tensor] = self.towers(mixed, inputs)
        return logits
