"""EPNet, PEPNet's gate on the shared embedding (Chang et al., KDD 2023, section 3.3)."""

import torch
from torch import Tensor, nn

from ranker.modules.gate_nu import GateNU, Gates
from ranker.slots import FeatureLayout


class EPNet(nn.Module):
    """O_ep = GateNU([E(F_d), sg(E)]) * E with the shared embedding E and the domain's prior E(F_d).

    One gate serves all domains. sg stops the gradient: the gate's input does not reshape the
    embeddings, its prior does.

    Args:
        layout: of the shared embedding.
        prior: features that describe the domain.
        hidden_dim: width of the gate's hidden layer.
        gamma: largest gate.

    Raises:
        ValueError: the prior names an unknown feature.
    """

    def __init__(
        self, *, layout: FeatureLayout, prior: list[str], hidden_dim: int, gamma: float = 2.0
    ) -> None:
        super().__init__()
        self.layout, self.prior = layout, prior
        self.gate = GateNU(
            input_dim=layout.width_of(prior, "gate.prior") + layout.dim,
            hidden_dim=hidden_dim,
            output_dim=layout.dim,
            gamma=gamma,
            option="gate",
        )

    def forward(self, embedded: Tensor) -> Tensor:
        """Maps [C, D] to [C, D]."""
        prior = self.layout.take(embedded, self.prior)
        gates: Gates = self.gate(torch.cat([prior, embedded.detach()], dim=1))
        return gates.scale(embedded)
