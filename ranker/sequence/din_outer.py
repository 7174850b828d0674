"""DIN with the outer product in its activation unit, as the paper's text has it."""

import torch
from torch import Tensor, nn

from ranker.modules.behavior import BehaviorInput, CrossMode
from ranker.modules.linear import Linear
from ranker.modules.mlp import Activation, build_activation
from ranker.modules.window_groups import WindowGroup, group_windows
from ranker.modules.windows import check_max_length, latest_behaviors
from ranker.slots import SequenceInputs


class DINOuter(nn.Module):
    """v(A) = sum_{j in window} a(e_j, v_A) e_j, a a feed-forward net over [v_A, e_j, v_A x e_j].

    x is the outer product, D^2 inputs, which Zhou et al. (KDD 2018, section 4.3) describe; their
    released code has [v_A, e_j, v_A - e_j, v_A * e_j] instead, which `DIN` does. Scores are not
    normalised (the paper). The first layer is applied as a bilinear form, so that no D^2 inputs
    exist for a pair; its weights do, so D should be small.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        hidden_units: widths of a's hidden layers.
        activation: of the hidden layers; dice takes the statistics of all ranks' valid pairs.
        cross: "add" adds a projection of the cross features to e_j, "none" leaves them out,
            "auto" adds if there are any.
        max_length: attend to this many of the latest behaviours; None attends to all.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        hidden_units: list[int],
        activation: Activation = "prelu",
        cross: CrossMode = "auto",
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        check_max_length("din_outer", max_length)
        if not hidden_units:
            raise ValueError("din_outer hidden_units is empty; name at least one width")
        self.max_length = max_length
        self.output_dim = query_dim
        self.behavior = BehaviorInput(query_dim=query_dim, cross_dim=cross_dim, cross=cross)
        width = hidden_units[0]
        first = torch.empty(width, query_dim * (query_dim + 2))
        nn.init.xavier_normal_(first)
        self.of_query = nn.Parameter(first[:, :query_dim].clone())
        self.of_behavior = nn.Parameter(first[:, query_dim : 2 * query_dim].clone())
        products = first[:, 2 * query_dim :]
        self.of_product = nn.Parameter(products.reshape(width, query_dim, query_dim).clone())
        self.bias = nn.Parameter(torch.zeros(width))
        layers: list[nn.Module] = [build_activation(activation, width)]
        for next_width in hidden_units[1:]:
            linear = Linear(width, next_width)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, build_activation(activation, next_width)]
            width = next_width
        self.rest = nn.Sequential(*layers, Linear(width, 1))

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, D]; an empty window gives zeros."""
        behaviors = self.behavior(inputs.behaviors, inputs.cross)
        windows = latest_behaviors(inputs.windows, self.max_length)
        candidates, rows, hidden = self._pairs(inputs.query, behaviors, group_windows(windows))
        # all pairs at once, because dice takes statistics over them, on every rank
        scores = self.rest(hidden)
        pooled = behaviors.new_zeros(len(inputs.query), self.output_dim)
        return pooled.index_add(0, candidates, scores * behaviors[rows])

    def _pairs(
        self, query: Tensor, behaviors: Tensor, groups: list[WindowGroup]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns candidate [P], behaviour [P] and first layer [P, H] of every pair."""
        by_query = query @ self.of_query.T + self.bias
        by_behavior = behaviors @ self.of_behavior.T
        empty = torch.zeros(0, dtype=torch.int64, device=query.device)
        nothing = (self.of_product.sum() + query.sum()) * 0 + by_query[:0] + by_behavior[:0].sum()
        parts = [(empty, empty, nothing)]
        for group in groups:
            rows, mask = group.rows[group.slot], group.mask[group.slot]
            absorbed = torch.einsum("kd,hde->khe", query[group.candidates], self.of_product)
            products = torch.einsum("khe,kle->klh", absorbed, behaviors[rows])
            hidden = products + by_behavior[rows] + by_query[group.candidates].unsqueeze(1)
            owners = group.candidates.unsqueeze(1).expand_as(rows)
            # found once, not by each of the three: a GPU is waited for
            pairs = mask.flatten().nonzero()[:, 0]
            hidden = hidden.flatten(0, 1).index_select(0, pairs)
            parts.append((owners.flatten()[pairs], rows.flatten()[pairs], hidden))
        candidates, behavior_rows, hiddens = zip(*parts, strict=True)
        return torch.cat(candidates), torch.cat(behavior_rows), torch.cat(hiddens)
