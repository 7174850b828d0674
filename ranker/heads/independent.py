"""Independent towers on shared embeddings; with a product of tasks, ESMM."""

from torch import Tensor, nn

from ranker.modules.ppnet import PPNetOptions
from ranker.modules.task_towers import TaskTowers, TowerOptions
from ranker.slots import FeatureLayout, HeadInputs


class Independent(nn.Module):
    """logit_t = tower_t(x): tasks share the embeddings and nothing else.

    With towers ctr and cvr and the product ctcvr = ctr * cvr this is ESMM's network (Ma et al.,
    SIGIR 2018, figure 2); with `ppnet` the towers are PEPNet's.

    Args:
        input_dim: width of the features.
        tasks: tasks of the data set.
        layout: of the shared embedding.
        towers: what is predicted, and the towers.
        ppnet: personalised gates in the towers.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        tasks: tuple[str, ...],
        layout: FeatureLayout,
        towers: TowerOptions,
        ppnet: PPNetOptions | None = None,
    ) -> None:
        super().__init__()
        self.towers = TaskTowers(
            input_dim=input_dim,
            tower_dim=input_dim,
            tasks=tasks,
            layout=layout,
            options=towers,
            ppnet=ppnet,
        )

    def forward(self, inputs: HeadInputs) -> dict[str, Tensor]:
        """Returns a logit [C] per task."""
        logits: dict[str, Tensor] = self.towers([inputs.features] * len(self.towers.names), inputs)
        return logits
