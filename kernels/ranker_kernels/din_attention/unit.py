"""The weights of DIN's local activation unit, as plain tensors."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor

Activation = Literal["sigmoid", "prelu", "dice"]
Normalize = Literal["none", "softmax"]

# DIN (1706.06978), below equation 3
DICE_EPSILON = 1e-8


class Moments(NamedTuple):
    """Statistics of one hidden layer's pre-activations, as Dice uses them; or their gradients."""

    mean: Tensor  # [H]
    variance: Tensor  # [H], biased


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Linear layers over pairs, with an activation after each but the last.

    Attributes:
        activation: of every hidden layer. With Dice and PReLU each unit has its own `alphas` entry.
        weights: `[H1, 4D]`, then `[H2, H1]` and so on.
        biases: `[H1]`, `[H2]` and so on.
        alphas: `[H]` for every hidden layer; empty with sigmoid.
        moments: Dice's statistics for every hidden layer; empty with another activation.
    """

    activation: Activation
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    alphas: tuple[Tensor, ...] = ()
    moments: tuple[Moments, ...] = ()

    def to(self, dtype: torch.dtype) -> Self:
        """Converts every part; differentiable."""
        return dataclasses.replace(
            self,
            weights=tuple(weight.to(dtype) for weight in self.weights),
            biases=tuple(bias.to(dtype) for bias in self.biases),
            alphas=tuple(alpha.to(dtype) for alpha in self.alphas),
            moments=tuple(Moments(m.mean.to(dtype), m.variance.to(dtype)) for m in self.moments),
        )


@dataclass(frozen=True, kw_only=True)
class ActivationUnit(Layers):
    """A small feed-forward net that scores one (candidate, behaviour) pair.

    score = w_n act(... act(W_1 [q; k; q - k; q * k] + b_1) ...) + b_n

    Attributes:
        weights: the last, the score's, is `[1, H_last]`.
        biases: the last is `[1]`.
        moments: Dice's statistics, usually moving averages. Empty: those of the batch, over its
            valid pairs.

    Raises:
        ValueError: a part is missing or superfluous for the activation.
    """

    def __post_init__(self) -> None:
        if self.activation not in get_args(Activation):
            raise ValueError(
                f"activation is {self.activation!r}; choose one of {get_args(Activation)}"
            )
        hidden = len(self.weights) - 1
        if hidden < 1 or len(self.biases) != hidden + 1:
            raise ValueError(
                f"got {len(self.weights)} weights and {len(self.biases)} biases; give one of each "
                "for every hidden layer (at least one) and for the score"
            )
        slopes = 0 if self.activation == "sigmoid" else hidden
        if len(self.alphas) != slopes:
            raise ValueError(
                f"activation {self.activation!r} with {hidden} hidden layers takes {slopes} "
                f"alphas, got {len(self.alphas)}"
            )
        if len(self.moments) not in ({0, hidden} if self.activation == "dice" else {0}):
            raise ValueError(
                f"got {len(self.moments)} moments; give one for each of the {hidden} hidden "
                "layers with Dice's moving averages, and none otherwise"
            )

    @property
    def uses_batch_moments(self) -> bool:
        """Whether Dice takes its statistics from the batch at hand."""
        # torch.compile knows no truth of a tuple of tuples
        return self.activation == "dice" and len(self.moments) == 0


class Gradients(NamedTuple):
    """Gradients of everything that can be learned."""

    query: Tensor
    behaviors: Tensor
    weights: list[Tensor]
    biases: list[Tensor]
    alphas: list[Tensor]
    moments: Sequence[Moments] = ()


def compute_dtype(query: Tensor, behaviors: Tensor) -> torch.dtype:
    """Returns the precision of the computation: at least float32, whatever the inputs.

    Sums over a window in half precision would lose what the products kept.
    """
    return torch.promote_types(torch.promote_types(query.dtype, behaviors.dtype), torch.float32)
