"""HSTU, hierarchical sequential transduction unit (Zhai et al., ICML 2024), for ranking."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.modules.behavior import BehaviorInput, CrossMode
from ranker.modules.linear import Linear
from ranker.modules.recency import time_bucket
from ranker.modules.window_groups import WindowGroup, encode_groups, group_windows
from ranker.modules.windows import check_max_length, latest_behaviors
from ranker.slots import SequenceInputs


class HSTU(nn.Module):
    """Layers of pointwise gated attention over the behaviours and the candidate behind them.

    For tokens X in the order of time, each seeing itself and what is before it (equations 1 to 3):

        U, V, Q, K = split(silu(f_1(norm(X))))
        Y = f_2(norm(A V) * U) + X,    A = silu(Q K^T + rab) / n

    rab is a learned bias by relative place and by bucket of the time between two tokens. Without a
    softmax the sum over behaviours tells the intensity of interest. n is the number of tokens of
    the window (public code divides by a constant, the longest length that the model allows). The
    candidate's output is the result: target-aware, as the paper ranks.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        num_layers: layers.
        num_heads: heads of each.
        head_dim: width of U, V, Q and K in a head.
        max_positions: relative places with a bias of their own; larger ones share the last. 0
            leaves it out.
        time_buckets: buckets of the time between two tokens, see `Recency`. 0 leaves it out.
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
        num_layers: int = 2,
        num_heads: int = 2,
        head_dim: int = 16,
        max_positions: int = 64,
        time_buckets: int = 40,
        cross: CrossMode = "auto",
        max_length: int | None = 50,
    ) -> None:
        super().__init__()
        check_max_length("hstu", max_length)
        for name, value in (
            ("num_layers", num_layers),
            ("num_heads", num_heads),
            ("head_dim", head_dim),
        ):
            if value < 1:
                raise ValueError(f"hstu {name} is {value}; must be at least 1")
        self.max_length = max_length
        self.output_dim = query_dim
        self.behavior = BehaviorInput(query_dim=query_dim, cross_dim=cross_dim, cross=cross)
        self.layers = nn.ModuleList(
            _Layer(query_dim, num_heads, head_dim, max_positions, time_buckets)
            for _ in range(num_layers)
        )

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, D]; an empty window gives zeros."""
        behaviors = self.behavior(inputs.behaviors, inputs.cross)

        def encode(group: WindowGroup) -> Tensor:
            rows, mask = group.rows[group.slot], group.mask[group.slot]
            lengths = group.lengths[group.slot].unsqueeze(1)
            query = inputs.query[group.candidates].unsqueeze(1)
            tokens = torch.cat([behaviors[rows], query], dim=1)
            # the candidate's place is behind the last behaviour, whatever the padding between
            steps = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
            places = torch.cat([steps, lengths], dim=1)
            time = inputs.time[group.candidates].unsqueeze(1)
            times = torch.cat([inputs.behavior_time[rows], time], dim=1)
            before = places.unsqueeze(2) >= places.unsqueeze(1)
            visible = before & F.pad(mask, (0, 1), value=True).unsqueeze(1)
            for layer in self.layers:
                tokens = layer(tokens, places, times, visible / (lengths.unsqueeze(2) + 1))
            return tokens[:, -1]

        return encode_groups(
            group_windows(latest_behaviors(inputs.windows, self.max_length)),
            encode,
            encoder=self,
            output_dim=self.output_dim,
            inputs=inputs,
        )


class _Layer(nn.Module):
    def __init__(
        self, dim: int, num_heads: int, head_dim: int, max_positions: int, time_buckets: int
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        width = num_heads * head_dim
        self.norm, self.norm_attended = nn.LayerNorm(dim), nn.LayerNorm(width)
        self.first, self.second = Linear(dim, 4 * width), Linear(width, dim)
        self.place_bias = nn.Embedding(max_positions, 1) if max_positions else None
        self.time_bias = nn.Embedding(time_buckets, 1) if time_buckets else None
        for table in (self.place_bias, self.time_bias):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Tensor, places: Tensor, times: Tensor, shares: Tensor) -> Tensor:
        """Maps tokens [G, L, D]; `shares` [G, L, L] is 1 / n where a token sees another, else 0."""
        gate, value, query, key = F.silu(self.first(self.norm(tokens))).chunk(4, dim=2)
        query, key, value = (
            x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2) for x in (query, key, value)
        )
        scores = query @ key.transpose(2, 3)
        if self.place_bias is not None:
            distance = (places.unsqueeze(2) - places.unsqueeze(1)).clamp_min(0)
            distance = distance.clamp_max(self.place_bias.num_embeddings - 1)
            scores = scores + self.place_bias(distance).squeeze(3).unsqueeze(1)
        if self.time_bias is not None:
            gaps = times.unsqueeze(2) - times.unsqueeze(1)
            buckets = time_bucket(gaps, self.time_bias.num_embeddings)
            scores = scores + self.time_bias(buckets).squeeze(3).unsqueeze(1)
        attended = (F.silu(scores) * shares.to(scores.dtype).unsqueeze(1)) @ value
        merged = self.norm_attended(attended.transpose(1, 2).flatten(2))
        output: Tensor = tokens + self.second(merged * gate)
        return output
