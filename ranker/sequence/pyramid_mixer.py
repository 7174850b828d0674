"""Pyramid Mixer: MLPs along time and along features, on ever longer periods (2506.16942)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.modules.behavior import BehaviorInput, CrossMode
from ranker.modules.linear import Linear
from ranker.modules.recency import places_from_the_end
from ranker.modules.window_groups import WindowGroup, encode_groups, group_windows
from ranker.modules.windows import check_max_length, latest_behaviors
from ranker.slots import SequenceInputs


class PyramidMixer(nn.Module):
    """Levels of cross-behaviour and cross-feature mixing, each on half as many, longer periods.

    On X in R^{L x D}, the latest behaviour first:

        X <- X + W_2 gelu(W_1 norm(X))    along the L places   (cross-behaviour)
        X <- X + V_2 gelu(V_1 norm(X))    along the D columns  (cross-feature)
        a level's output is the mean of X; the next level sees the means of neighbouring places

    The levels' outputs stand side by side. Only the abstract of the paper was at hand: the idea is
    its own, the details (norm, mean, stride 2) are ours. Mixing along time needs a fixed number of
    places: a window with fewer behaviours has zeros in the others, which contribute nothing.
    The result does not depend on the candidate.

    Args:
        query_dim: width D of a behaviour's inherent features.
        cross_dim: width X of its cross features.
        max_length: number of places L, filled from the latest behaviour on.
        num_levels: levels; each halves the number of places.
        time_dim: hidden width of the mixing along time.
        feature_dim: hidden width of the mixing along features.
        cross: "add" adds a projection of the cross features to e_j, "none" leaves them out,
            "auto" adds if there are any.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        max_length: int = 50,
        num_levels: int = 3,
        time_dim: int = 32,
        feature_dim: int = 64,
        cross: CrossMode = "auto",
    ) -> None:
        super().__init__()
        check_max_length("pyramid_mixer", max_length)
        if num_levels < 1 or max_length >> (num_levels - 1) < 1:
            raise ValueError(
                f"pyramid_mixer num_levels is {num_levels}; must be at least 1, and each level "
                f"halves max_length ({max_length})"
            )
        self.max_length = max_length
        self.output_dim = num_levels * query_dim
        self.behavior = BehaviorInput(query_dim=query_dim, cross_dim=cross_dim, cross=cross)
        self.levels = nn.ModuleList()
        length = max_length
        for _ in range(num_levels):
            self.levels.append(_Level(length, query_dim, time_dim, feature_dim))
            length = (length + 1) // 2

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, num_levels * D]; an empty window gives zeros."""
        behaviors = self.behavior(inputs.behaviors, inputs.cross)

        def encode(group: WindowGroup) -> Tensor:
            # from the order of time to the latest first, behind them nothing
            order = places_from_the_end(group.lengths, group.rows.shape[1])
            latest_first = group.rows.gather(1, order)
            missing = self.max_length - group.rows.shape[1]
            mask = F.pad(group.mask, (0, missing)).unsqueeze(2).to(behaviors.dtype)
            places = behaviors[F.pad(latest_first, (0, missing))] * mask
            outputs = []
            for index, level in enumerate(self.levels):
                if index:
                    places, mask = _halve(places, mask)
                places = level(places, mask)
                outputs.append(places.sum(1) / mask.sum(1))
            return torch.cat(outputs, dim=1)[group.slot]

        return encode_groups(
            group_windows(latest_behaviors(inputs.windows, self.max_length)),
            encode,
            encoder=self,
            output_dim=self.output_dim,
            inputs=inputs,
        )


class _Level(nn.Module):
    def __init__(self, length: int, dim: int, time_dim: int, feature_dim: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.time = nn.Sequential(Linear(length, time_dim), nn.GELU(), Linear(time_dim, length))
        self.feature = nn.Sequential(Linear(dim, feature_dim), nn.GELU(), Linear(feature_dim, dim))

    def forward(self, places: Tensor, mask: Tensor) -> Tensor:
        """Maps [G, L, D]; places where `mask` [G, L, 1] is 0 neither give nor take."""
        along_time = (self.norms[0](places) * mask).transpose(1, 2)
        places = places + self.time(along_time).transpose(1, 2) * mask
        output: Tensor = places + self.feature(self.norms[1](places)) * mask
        return output


def _halve(places: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Joins neighbouring places: the mean of those of the two that are there."""
    if places.shape[1] % 2:
        places, mask = F.pad(places, (0, 0, 0, 1)), F.pad(mask, (0, 0, 0, 1))
    count = mask[:, ::2] + mask[:, 1::2]
    masked = places * mask
    means = (masked[:, ::2] + masked[:, 1::2]) / count.clamp_min(1)
    return means, count.clamp_max(1)
