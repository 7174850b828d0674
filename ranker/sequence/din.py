"""DIN, Deep Interest Network (Zhou et al., KDD 2018, section 4.3)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ranker.modules.behavior import BehaviorInput, CrossMode
from ranker.modules.dice import merge_moments
from ranker.modules.recency import RecentBehaviors
from ranker.modules.windows import check_max_length, latest_behaviors
from ranker.slots import SequenceInputs
from ranker_kernels.din_attention import (
    Activation,
    ActivationUnit,
    Moments,
    Normalize,
    din_attention,
)


class DIN(nn.Module):
    """v(A) = sum_{j in window} a(e_j, v_A) e_j with the local activation unit a (equation 3).

    a is a feed-forward net over [v_A, e_j, v_A - e_j, v_A * e_j]. An empty history gives zeros.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        hidden_units: widths of a's hidden layers.
        activation: dice (the paper's; in training the statistics of all ranks' valid pairs, moving
            averages in evaluation), prelu or sigmoid.
        normalize: "none" keeps the scores, whose sum tells the intensity of interest (the paper);
            "softmax" normalises score / sqrt(D) over the window (the authors' code).
        cross: "add" adds a projection of the cross features to e_j, "none" leaves them out,
            "auto" adds if there are any.
        dice_momentum: weight of a new batch in Dice's moving averages.
        max_length: attend to this many of the latest behaviours, when the loader brings more for
            another encoder; None attends to all.
        max_positions: places from the end of the history with a vector that is added to e_j; 0
            leaves the place out. See `Recency`.
        time_buckets: buckets of the time since the behaviour, likewise. Either of the two copies
            the behaviours for each request.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        hidden_units: list[int],
        activation: Activation = "prelu",
        normalize: Normalize = "none",
        cross: CrossMode = "auto",
        dice_momentum: float = 0.01,
        max_length: int | None = None,
        max_positions: int = 0,
        time_buckets: int = 0,
    ) -> None:
        super().__init__()
        check_max_length("din", max_length)
        self.max_length = max_length
        self.output_dim = query_dim
        self.activation = activation
        self.normalize = normalize
        self.dice_momentum = dice_momentum
        self.behavior = BehaviorInput(query_dim=query_dim, cross_dim=cross_dim, cross=cross)
        self.recent = (
            RecentBehaviors(dim=query_dim, max_positions=max_positions, time_buckets=time_buckets)
            if max_positions or time_buckets
            else None
        )
        shapes = list(pairwise([4 * query_dim, *hidden_units, 1]))
        self.weights = nn.ParameterList(
            nn.init.xavier_normal_(torch.empty(outputs, inputs)) for inputs, outputs in shapes
        )
        self.biases = nn.ParameterList(torch.zeros(outputs) for _, outputs in shapes)
        # Dice starts with slope 0, PReLU with torch's 0.25
        slope = 0.0 if activation == "dice" else 0.25
        slopes = [] if activation == "sigmoid" else hidden_units
        self.alphas = nn.ParameterList(torch.full((width,), slope) for width in slopes)
        # [2, H] moving mean and variance of each hidden layer
        self.averages = [f"moments_{i}" for i in range(len(hidden_units) * (activation == "dice"))]
        for name, width in zip(self.averages, hidden_units, strict=False):
            self.register_buffer(name, torch.stack([torch.zeros(width), torch.ones(width)]))

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, D]."""
        behaviors = self.behavior(inputs.behaviors, inputs.cross)
        windows = latest_behaviors(inputs.windows, self.max_length)
        if self.recent is not None:
            behaviors, windows = self.recent(behaviors, inputs.behavior_time, windows, inputs.time)
        pooled, moments = din_attention(
            inputs.query,
            behaviors,
            windows,
            self._unit(),
            normalize=self.normalize,
            merge_moments=_merge_moments,
        )
        if moments:
            variance = moments[0].variance
            # zero everywhere means that no rank has a single pair, and then nothing moves; the
            # device decides it, because to ask would wait for a GPU
            share = self.dice_momentum * variance.any().to(variance)
            for name, moment in zip(self.averages, moments, strict=True):
                self.get_buffer(name).lerp_(torch.stack(list(moment)), share)
        return pooled

    def _unit(self) -> ActivationUnit:
        """Returns the activation unit; Dice uses the batch's statistics in training."""
        averages = [] if self.training else self.averages
        return ActivationUnit(
            activation=self.activation,
            weights=tuple(self.weights),
            biases=tuple(self.biases),
            alphas=tuple(self.alphas),
            moments=tuple(Moments(*self.get_buffer(name).unbind(0)) for name in averages),
        )


def _merge_moments(own: Moments, count: Tensor) -> Moments:
    return Moments(*merge_moments(own.mean, own.variance, count))
