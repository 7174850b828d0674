"""Gate NU, the gate unit of PEPNet (Chang et al., KDD 2023, section 3.2)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ranker.modules.linear import Linear
from ranker_kernels.gated_scale import gated_scale


class Gates(NamedTuple):
    """Gates delta = gamma * sigmoid(logits), which exist only as factors.

    Attributes:
        logits: [C, width].
        gamma: largest gate.
    """

    logits: Tensor
    gamma: float

    def scale(self, hidden: Tensor) -> Tensor:
        """Returns delta * hidden, [C, width]."""
        return gated_scale(self.logits, hidden, self.gamma)

    def split(self, parts: int) -> "list[Gates]":
        """Cuts the width into equal parts."""
        return [self._replace(logits=logits) for logits in self.logits.chunk(parts, dim=1)]


class GateNU(nn.Module):
    """delta = gamma * sigmoid(relu(x W + b) W' + b'), between 0 and gamma.

    W' starts at 0 and b' where delta is 1, so a new gate is the identity.

    Args:
        input_dim: width of the gate's input x.
        hidden_dim: width of W.
        output_dim: number of gates.
        gamma: largest gate (2 in the paper).
        option: key of the configuration, for messages.

    Raises:
        ValueError: gamma is not above 1 or hidden_dim not positive.
    """

    def __init__(
        self, *, input_dim: int, hidden_dim: int, output_dim: int, gamma: float, option: str
    ) -> None:
        super().__init__()
        if gamma <= 1:
            raise ValueError(
                f"{option}.gamma is {gamma}; it must be above 1, or no gate could start at 1"
            )
        if hidden_dim < 1:
            raise ValueError(f"{option}.hidden_dim is {hidden_dim}; it must be at least 1")
        self.gamma = gamma
        self.hidden = Linear(input_dim, hidden_dim)
        self.output = Linear(hidden_dim, output_dim)
        nn.init.xavier_normal_(self.hidden.weight)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.output.weight)
        nn.init.constant_(self.output.bias, -math.log(gamma - 1))

    def forward(self, inputs: Tensor) -> Gates:
        """Maps [C, input_dim] to gates [C, output_dim]."""
        return Gates(self.output(torch.relu(self.hidden(inputs))), self.gamma)
