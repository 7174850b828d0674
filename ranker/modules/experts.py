"""Experts and the gates that mix them, for MMoE and PLE."""

import torch
from torch import Tensor, nn

from ranker.modules.linear import Linear
from ranker.modules.mlp import MLP, Activation


class Experts(nn.Module):
    """A number of MLPs on one input.

    Args:
        num_experts: number of experts E.
        input_dim: width of the input.
        hidden_units: widths of each expert.
        activation: after each layer.
        dropout: share of units dropped in training.
    """

    def __init__(
        self,
        *,
        num_experts: int,
        input_dim: int,
        hidden_units: list[int],
        activation: Activation,
        dropout: float,
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            MLP(
                input_dim=input_dim,
                hidden_units=hidden_units,
                activation=activation,
                dropout=dropout,
            )
            for _ in range(num_experts)
        )
        self.output_dim = hidden_units[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [C, input_dim] to [C, E, hidden_units[-1]]."""
        return torch.stack([expert(inputs) for expert in self.experts], dim=1)


class ExpertGate(nn.Module):
    """z = sum_e softmax(W x)_e f_e: a single linear layer chooses, as in MMoE's equation 7.

    Args:
        input_dim: width of the gate's input x.
        num_experts: number of experts E it mixes.
    """

    def __init__(self, *, input_dim: int, num_experts: int) -> None:
        super().__init__()
        self.weight = Linear(input_dim, num_experts, bias=False)

    def forward(self, inputs: Tensor, experts: Tensor) -> Tensor:
        """Mixes experts [C, E, H] to [C, H] by an input [C, input_dim]."""
        shares = torch.softmax(self.weight(inputs), dim=1)
        return torch.einsum("ce,ceh->ch", shares, experts)


def check_experts(option: str, num_experts: int, hidden_units: list[int]) -> None:
    """Checks a group of experts.

    Args:
        option: key of the number of experts in the configuration.
        num_experts: its value.
        hidden_units: widths of each expert.

    Raises:
        ValueError: there are no experts, or they have no layers.
    """
    if num_experts < 1:
        raise ValueError(f"{option} is {num_experts}; it must be at least 1")
    if not hidden_units:
        raise ValueError("head.expert_units is empty; an expert needs at least one layer")
