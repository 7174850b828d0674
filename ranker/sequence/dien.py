"""DIEN, Deep Interest Evolution Network (Zhou et al., AAAI 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.distributed import weighted_mean
from ranker.modules.behavior import BehaviorInput, CrossMode
from ranker.modules.linear import Linear
from ranker.modules.window_groups import WindowGroup, encode_groups, group_windows
from ranker.modules.windows import check_max_length, latest_behaviors
from ranker.slots import SequenceInputs
from ranker_kernels.linear import linear


class DIEN(nn.Module):
    """Interests from a GRU, their evolution towards the candidate from a GRU with attentional gate.

    extractor   h_t = GRU(e_1 .. e_t), with the auxiliary loss (equations 6 and 7)
                - mean_t [ln sigmoid(h_t . e_{t+1}) + ln(1 - sigmoid(h_t . e'_{t+1}))]
    attention   a_t = softmax_t(h_t W v_A)                                    (equation 8)
    evolution   AUGRU on h_t: the update gate is a_t u_t                      (equations 14 to 16)

    The output is the last evolved state. e'_{t+1} is drawn from all behaviours of the rank's batch;
    a draw that equals e_{t+1} does not count. The authors' code has a small net in the place of the
    inner product; the inner product needs states as wide as the behaviours, and so they are.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        auxiliary_weight: weight of the auxiliary loss in the total loss; 0 leaves it out.
        cross: "add" adds a projection of the cross features to e_j, "none" leaves them out,
            "auto" adds if there are any.
        max_length: read this many of the latest behaviours; None reads all. One step after the
            other.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        auxiliary_weight: float = 1.0,
        cross: CrossMode = "auto",
        max_length: int | None = 50,
    ) -> None:
        super().__init__()
        check_max_length("dien", max_length)
        if auxiliary_weight < 0:
            raise ValueError(f"dien auxiliary_weight is {auxiliary_weight}; must be at least 0")
        self.max_length = max_length
        self.auxiliary_weight = auxiliary_weight
        self.output_dim = query_dim
        self.behavior = BehaviorInput(query_dim=query_dim, cross_dim=cross_dim, cross=cross)
        self.extractor = nn.GRU(query_dim, query_dim, batch_first=True)
        self.attention = Linear(query_dim, query_dim, bias=False)
        self.evolution = nn.GRUCell(query_dim, query_dim)

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, D]; an empty window gives zeros."""
        behaviors = self.behavior(inputs.behaviors, inputs.cross)
        groups = group_windows(latest_behaviors(inputs.windows, self.max_length))
        losses: list[tuple[Tensor, Tensor]] = []

        def encode(group: WindowGroup) -> Tensor:
            states, _ = self.extractor(behaviors[group.rows])
            if self.training and self.auxiliary_weight:
                losses.append(self._auxiliary(states, group, behaviors, inputs.weights))
            mask = group.mask[group.slot]
            query = self.attention(inputs.query[group.candidates])
            scores = torch.einsum("gld,gd->gl", states[group.slot], query)
            attention = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=1)
            return self._evolve(states, attention, group.slot)

        output = encode_groups(
            groups, encode, encoder=self, output_dim=self.output_dim, inputs=inputs
        )
        if self.training and self.auxiliary_weight:
            # a rank without a history takes part in the mean over all ranks
            losses.append((behaviors.new_zeros(0), behaviors.new_zeros(0)))
            values, weights = (torch.cat(column) for column in zip(*losses, strict=True))
            mean = weighted_mean(values, weights.to(values.dtype))
            inputs.losses["dien_auxiliary"] = self.auxiliary_weight * mean
        return output

    def _evolve(self, states: Tensor, attention: Tensor, slot: Tensor) -> Tensor:
        """Returns the last state [K, D] of the AUGRU over states [G, L, D] with gates [K, L]."""
        cell = self.evolution
        entering = linear(states, cell.weight_ih, cell.bias_ih)
        evolved = states.new_zeros(len(slot), self.output_dim)
        for step in range(states.shape[1]):
            reset_in, update_in, new_in = entering[slot, step].chunk(3, dim=1)
            reset_h, update_h, new_h = linear(evolved, cell.weight_hh, cell.bias_hh).chunk(3, 1)
            reset = torch.sigmoid(reset_in + reset_h)
            new = torch.tanh(new_in + reset * new_h)
            # a place behind the end has attention 0: the state stays
            update = attention[:, step, None] * torch.sigmoid(update_in + update_h)
            evolved = (1 - update) * evolved + update * new
        return evolved

    def _auxiliary(
        self, states: Tensor, group: WindowGroup, behaviors: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the losses of the group's steps to a next behaviour, and their weights."""
        draws = torch.randint(len(behaviors), group.rows[:, 1:].shape, device=states.device)
        following, drawn = behaviors[group.rows[:, 1:]], behaviors[draws]
        positive = (states[:, :-1] * following).sum(2)
        negative = (states[:, :-1] * drawn).sum(2)
        counts = (following != drawn).any(2)
        loss = F.softplus(-positive) + F.softplus(negative) * counts
        each = group.counts(weights).unsqueeze(1) * group.mask[:, 1:]
        return loss.flatten(), each.flatten()
