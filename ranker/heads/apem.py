"""APEM, automatic pattern extraction for multi-step conversions (2301.02494)."""

import torch
from torch import Tensor, nn

from ranker.modules.induced_attention import InducedAttention
from ranker.modules.linear import Linear
from ranker.modules.ppnet import PPNetOptions
from ranker.modules.task_towers import TaskTowers, TowerOptions
from ranker.slots import FeatureLayout, HeadInputs


class APEM(nn.Module):
    """Patterns that attention finds among the features, and for each task a selection of them.

    1. DeepAuto group transformer. The features are cut into `num_groups` chunks of equal width,
       projected to tokens. `num_layers` set attention blocks with `num_inducing` learned
       queries mix them in linear time (ISAB, Lee et al., ICML 2019). Squeeze-and-excitation weighs
       the tokens: token_p * sigmoid(MLP(mean of each token))_p. These are the patterns z_p.
    2. Pattern selector. A learned vector u_t says which task it is;
       gate_t = sigmoid(MLP([u_t, mean of the patterns])), one number for each pattern, and the
       tower of task t sees the patterns scaled by its gates, side by side.

    Only the abstract of the paper was at hand: the parts are its own (grouped features, modified
    set attention followed by squeeze-and-excitation, a task vector that gates patterns), the
    equations above are ours.

    Args:
        input_dim: width of the features.
        tasks: tasks of the data set.
        layout: of the shared embedding.
        num_groups: groups of features, and so patterns.
        token_dim: width of a pattern.
        num_inducing: learned queries of a set attention block.
        num_heads: heads of its attention; divides token_dim.
        num_layers: set attention blocks.
        gate_units: hidden width of the squeeze-and-excitation and of the selector.
        towers: what is predicted, and the towers.
        ppnet: personalised gates in the towers.

    Raises:
        ValueError: a number is less than 1, or there are more groups than features.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        tasks: tuple[str, ...],
        layout: FeatureLayout,
        num_groups: int,
        token_dim: int,
        num_inducing: int,
        num_heads: int,
        num_layers: int,
        gate_units: int,
        towers: TowerOptions,
        ppnet: PPNetOptions | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "num_groups": num_groups,
            "token_dim": token_dim,
            "num_inducing": num_inducing,
            "num_heads": num_heads,
            "num_layers": num_layers,
            "gate_units": gate_units,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"head.{name} is {value}; it must be at least 1")
        if num_groups > input_dim:
            raise ValueError(
                f"head.num_groups is {num_groups}, but there are {input_dim} columns to group"
            )
        if token_dim % num_heads:
            raise ValueError(
                f"head.token_dim is {token_dim}; it must be a multiple of head.num_heads "
                f"({num_heads})"
            )
        # the last group is filled up with zeros
        self.group_dim = -(-input_dim // num_groups)
        self.padding = self.group_dim * num_groups - input_dim
        self.tokens = nn.Parameter(torch.empty(num_groups, self.group_dim, token_dim))
        for weight in self.tokens.data:
            nn.init.xavier_normal_(weight)
        self.attention = nn.Sequential(
            *(
                InducedAttention(dim=token_dim, num_inducing=num_inducing, num_heads=num_heads)
                for _ in range(num_layers)
            )
        )
        self.excitation = _gate(num_groups, gate_units, num_groups)
        self.task_vectors = nn.Parameter(torch.randn(len(towers.names), gate_units))
        self.selector = _gate(gate_units + token_dim, gate_units, num_groups)
        self.towers = TaskTowers(
            input_dim=input_dim,
            tower_dim=num_groups * token_dim,
            tasks=tasks,
            layout=layout,
            options=towers,
            ppnet=ppnet,
        )

    def forward(self, inputs: HeadInputs) -> dict[str, Tensor]:
        """Returns a logit [C] per task."""
        patterns = self.patterns(inputs.features)
        summary = patterns.mean(1)
        selected = []
        for vector in self.task_vectors:
            gates = self.selector(torch.cat([vector.expand(len(summary), -1), summary], dim=1))
            selected.append((gates.unsqueeze(2) * patterns).flatten(1))
        logits: dict[str, Tensor] = self.towers(selected, inputs)
        return logits

    def patterns(self, features: Tensor) -> Tensor:
        """Maps features [C, F] to patterns [C, num_groups, token_dim]."""
        padded = nn.functional.pad(features, (0, self.padding))
        groups = padded.view(len(features), -1, self.group_dim)
        mixed = self.attention(torch.einsum("cgf,gfd->cgd", groups, self.tokens))
        excited: Tensor = self.excitation(mixed.mean(2)).unsqueeze(2) * mixed
        return excited


def _gate(input_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    return nn.Sequential(
        Linear(input_dim, hidden_dim),
        nn.ReLU(),
        Linear(hidden_dim, output_dim),
        nn.Sigmoid(),
    )
