"""Shared bottom: one MLP that all tasks build on (Caruana 1997)."""

from torch import Tensor, nn

from ranker.modules.mlp import MLP, Activation
from ranker.modules.ppnet import PPNetOptions
from ranker.modules.task_towers import TaskTowers, TowerOptions
from ranker.slots import FeatureLayout, HeadInputs


class SharedBottom(nn.Module):
    """logit_t = tower_t(MLP(x)) with one MLP for all tasks.

    Args:
        input_dim: width of the features.
        tasks: tasks of the data set.
        layout: of the shared embedding.
        bottom_units: widths of the shared MLP.
        towers: what is predicted, and the towers.
        activation: in the shared MLP.
        dropout: share of the shared MLP's units dropped in training.
        ppnet: personalised gates in the towers.

    Raises:
        ValueError: the shared MLP has no layers.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        tasks: tuple[str, ...],
        layout: FeatureLayout,
        bottom_units: list[int],
        towers: TowerOptions,
        activation: Activation = "relu",
        dropout: float = 0.0,
        ppnet: PPNetOptions | None = None,
    ) -> None:
        super().__init__()
        if not bottom_units:
            raise ValueError("head.bottom_units is empty; use head=independent for no shared layer")
        self.bottom = MLP(
            input_dim=input_dim, hidden_units=bottom_units, activation=activation, dropout=dropout
        )
        self.towers = TaskTowers(
            input_dim=input_dim,
            tower_dim=self.bottom.output_dim,
            tasks=tasks,
            layout=layout,
            options=towers,
            ppnet=ppnet,
        )

    def forward(self, inputs: HeadInputs) -> dict[str, Tensor]:
        """Returns a logit [C] per task."""
        shared = self.bottom(inputs.features)
        logits: dict[str, Tensor] = self.towers([shared] * len(self.towers.names), inputs)
        return logits
