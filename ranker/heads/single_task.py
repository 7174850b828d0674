"""One task, one tower."""

from torch import Tensor, nn

from ranker.modules.mlp import MLP, Activation, linear_logit
from ranker.slots import HeadInputs


class SingleTask(nn.Module):
    """MLP tower with one logit: logit = w . MLP(x) + b.

    Args:
        input_dim: width of the features.
        tasks: tasks of the data set.
        task: the task to predict.
        hidden_units: widths of the tower.
        activation: relu, prelu, dice or sigmoid.
        dropout: share of hidden units dropped in training.

    Raises:
        ValueError: the data set has no such task.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        tasks: tuple[str, ...],
        task: str,
        hidden_units: list[int],
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if task not in tasks:
            raise ValueError(
                f"head.task is {task!r}; the data set has the tasks {', '.join(tasks)}"
            )
        self.task = task
        self.tower = MLP(
            input_dim=input_dim, hidden_units=hidden_units, activation=activation, dropout=dropout
        )
        self.logit = linear_logit(self.tower.output_dim)

    def forward(self, inputs: HeadInputs) -> dict[str, Tensor]:
        """Maps features [C, input_dim] to {task: [C]}."""
        return {self.task: self.logit(self.tower(inputs.features)).squeeze(-1)}
