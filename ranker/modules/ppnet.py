"""PPNet, PEPNet's gates on the layers of every task's tower (Chang et al., KDD 2023, 3.4)."""

import dataclasses

import torch
from torch import nn

from ranker.modules.gate_nu import GateNU, Gates
from ranker.slots import FeatureLayout, HeadInputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPNetOptions:
    """Personalised gates.

    Attributes:
        prior: features that tell users, items and authors apart.
        hidden_dim: width of each gate's hidden layer.
        gamma: largest gate.
        gate_first_input: also gate what enters the towers, not only their hidden layers.
    """

    prior: list[str]
    hidden_dim: int
    gamma: float = 2.0
    gate_first_input: bool = False


class PPNet(nn.Module):
    """delta^(l) = GateNU_l([O_prior, sg(O_ep)]), split into one gate per task, for every layer l.

    O_prior are the priors' embeddings, O_ep the features behind gate and interaction.

    Args:
        input_dim: width of the features.
        layout: of the shared embedding, which holds the priors.
        options: of the gates.
        num_towers: number of towers T.
        tower_dim: width of what enters a tower.
        hidden_units: widths of a tower's layers.

    Raises:
        ValueError: the prior names an unknown feature.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        layout: FeatureLayout,
        options: PPNetOptions,
        num_towers: int,
        tower_dim: int,
        hidden_units: list[int],
    ) -> None:
        super().__init__()
        self.layout, self.prior = layout, options.prior
        self.num_towers = num_towers
        prior_dim = layout.width_of(options.prior, "head.ppnet.prior")
        self.gate_first_input = options.gate_first_input
        first = [tower_dim] if options.gate_first_input else []
        self.gates = nn.ModuleList(
            GateNU(
                input_dim=prior_dim + input_dim,
                hidden_dim=options.hidden_dim,
                output_dim=num_towers * width,
                gamma=options.gamma,
                option="head.ppnet",
            )
            for width in [*first, *hidden_units]
        )

    def forward(self, inputs: HeadInputs) -> list[list[Gates | None]]:
        """Returns each tower's gates [C, width]: of its input (or None), then of each layer."""
        prior = self.layout.take(inputs.embedded, self.prior)
        gate_input = torch.cat([prior, inputs.features.detach()], dim=1)
        layers = [gate(gate_input).split(self.num_towers) for gate in self.gates]
        first: list[Gates | None] = [] if self.gate_first_input else [None]
        return [first + [layer[tower] for layer in layers] for tower in range(self.num_towers)]
