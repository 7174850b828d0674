"""BST, Behavior Sequence Transformer (Chen et al., DLP-KDD 2019)."""

import torch
from torch import Tensor, nn

from ranker.modules.behavior import BehaviorInput, CrossMode
from ranker.modules.linear import Linear
from ranker.modules.recency import Recency, places_from_the_end
from ranker.modules.self_attention import SelfAttention
from ranker.modules.window_groups import WindowGroup, encode_groups, group_windows
from ranker.modules.windows import check_max_length, latest_behaviors
from ranker.slots import SequenceInputs


class BST(nn.Module):
    """Self-attention over the behaviours and the candidate behind them.

    A layer is S' = LN(S + MH(S)), F = LN(S' + W_2 leaky_relu(W_1 S')) (equations 3 to 5). The
    paper's position is the time from the behaviour to the impression, here in buckets
    (`time_buckets`); `max_positions` adds the place. The paper hands all outputs of its fixed
    length to the MLP; for any length it is the candidate's output beside the behaviours' mean.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        num_layers: layers.
        num_heads: heads of each.
        head_dim: width of a head.
        hidden_dim: width of a layer's feed-forward net.
        dropout: share dropped behind attention and feed-forward net in training.
        max_positions: see `Recency`.
        time_buckets: see `Recency`.
        cross: "add" adds a projection of the cross features to e_j, "none" leaves them out,
            "auto" adds if there are any.
        max_length: read this many of the latest behaviours; None reads all. Work grows with its
            square for every candidate.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        num_layers: int = 1,
        num_heads: int = 4,
        head_dim: int = 8,
        hidden_dim: int = 64,
        dropout: float = 0.0,
        max_positions: int = 0,
        time_buckets: int = 40,
        cross: CrossMode = "auto",
        max_length: int | None = 50,
    ) -> None:
        super().__init__()
        check_max_length("bst", max_length)
        if num_layers < 1:
            raise ValueError(f"bst num_layers is {num_layers}; must be at least 1")
        self.max_length = max_length
        self.output_dim = 2 * query_dim
        self.behavior = BehaviorInput(query_dim=query_dim, cross_dim=cross_dim, cross=cross)
        self.recency = Recency(
            dim=query_dim, max_positions=max_positions, time_buckets=time_buckets
        )
        self.layers = nn.ModuleList(
            _Layer(query_dim, num_heads, head_dim, hidden_dim, dropout) for _ in range(num_layers)
        )

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, 2 D]; an empty window gives zeros."""
        behaviors = self.behavior(inputs.behaviors, inputs.cross)

        def encode(group: WindowGroup) -> Tensor:
            rows, mask = group.rows[group.slot], group.mask[group.slot]
            tokens = behaviors[rows]
            places = places_from_the_end(group.lengths[group.slot], rows.shape[1])
            time = inputs.time[group.candidates]
            recency = self.recency(places, time.unsqueeze(1) - inputs.behavior_time[rows])
            if recency is not None:
                tokens = tokens + recency
            tokens = torch.cat([tokens, inputs.query[group.candidates].unsqueeze(1)], dim=1)
            visible = nn.functional.pad(mask, (0, 1), value=True)
            for layer in self.layers:
                tokens = layer(tokens, visible)
            sums = (tokens[:, :-1] * mask.unsqueeze(2)).sum(1)
            return torch.cat([tokens[:, -1], sums / mask.sum(1, keepdim=True)], dim=1)

        return encode_groups(
            group_windows(latest_behaviors(inputs.windows, self.max_length)),
            encode,
            encoder=self,
            output_dim=self.output_dim,
            inputs=inputs,
        )


class _Layer(nn.Module):
    def __init__(
        self, dim: int, num_heads: int, head_dim: int, hidden_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(dim=dim, num_heads=num_heads, head_dim=head_dim)
        self.first, self.second = Linear(dim, hidden_dim), Linear(hidden_dim, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        attended = self.attention(tokens, visible)
        tokens = self.norms[0](tokens + self.dropout(attended))
        hidden = nn.functional.leaky_relu(self.first(tokens))
        output: Tensor = self.norms[1](tokens + self.dropout(self.second(hidden)))
        return output
