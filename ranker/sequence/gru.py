"""A recurrent encoder: the baseline that attention is measured against."""

import torch
from torch import Tensor, nn

from ranker.modules.behavior import BehaviorInput, CrossMode
from ranker.modules.window_groups import WindowGroup, encode_groups, group_windows
from ranker.modules.windows import check_max_length, latest_behaviors
from ranker.slots import SequenceInputs


class GRU(nn.Module):
    """The last state of a GRU over the window; candidates that see the same window share it.

    Args:
        query_dim: width D of a behaviour's inherent features.
        cross_dim: width X of its cross features.
        hidden_dim: width of the state.
        cross: "add" adds a projection of the cross features to e_j, "none" leaves them out,
            "auto" adds if there are any.
        max_length: read this many of the latest behaviours; None reads all.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        hidden_dim: int,
        cross: CrossMode = "auto",
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        check_max_length("gru", max_length)
        if hidden_dim < 1:
            raise ValueError(f"gru hidden_dim is {hidden_dim}; must be at least 1")
        self.max_length = max_length
        self.output_dim = hidden_dim
        self.behavior = BehaviorInput(query_dim=query_dim, cross_dim=cross_dim, cross=cross)
        self.gru = nn.GRU(query_dim, hidden_dim, batch_first=True)

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, hidden_dim]; an empty window gives zeros."""
        behaviors = self.behavior(inputs.behaviors, inputs.cross)

        def encode(group: WindowGroup) -> Tensor:
            states, _ = self.gru(behaviors[group.rows])
            # states behind the end of a window are of padding: nothing reads them
            last = states[torch.arange(len(states), device=states.device), group.lengths - 1]
            return last[group.slot]

        return encode_groups(
            group_windows(latest_behaviors(inputs.windows, self.max_length)),
            encode,
            encoder=self,
            output_dim=self.output_dim,
            inputs=inputs,
        )
