"""A multilayer perceptron with the activations that ranking models use."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ranker.modules.dice import Dice
from ranker.modules.linear import Linear

Activation = Literal["relu", "prelu", "dice", "sigmoid"]


def build_activation(name: Activation, num_units: int) -> nn.Module:
    """Returns an activation layer for [*, num_units].

    Raises:
        ValueError: the name is unknown.
    """
    match name:
        case "relu":
            return nn.ReLU()
        case "prelu":
            return nn.PReLU(num_units)
        case "dice":
            return Dice(num_units)
        case "sigmoid":
            return nn.Sigmoid()
        case _:
            raise ValueError(
                f"activation is {name!r}; must be one of {', '.join(get_args(Activation))}"
            )


class MLP(nn.Module):
    """Linear, activation and dropout for each hidden width.

    Args:
        input_dim: width of the input.
        hidden_units: width of each layer.
        activation: after each layer.
        dropout: share of units dropped in training.
    """

    def __init__(
        self, *, input_dim: int, hidden_units: list[int], activation: Activation, dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden_units:
            linear = Linear(input_dim, width)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, build_activation(activation, width)]
            if dropout:
                layers.append(nn.Dropout(dropout))
            input_dim = width
        self.layers = nn.Sequential(*layers)
        self.output_dim = input_dim

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [*, input_dim] to [*, hidden_units[-1]]."""
        output: Tensor = self.layers(inputs)
        return output


def linear_logit(input_dim: int) -> Linear:
    """Returns a tower's last layer: one logit, starting at 0, so that the first loss is ln 2."""
    layer = Linear(input_dim, 1)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return layer
