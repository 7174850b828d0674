"""Hidden activations with their derivatives, for code that writes its own backward.

Each is built for one layer. `forward` may overwrite z, and `backward` overwrites the gradient;
`z` and `h` are then what `forward` left in its argument and returned.
"""

from typing import Protocol

import torch
from torch import Tensor

from ranker_kernels.din_attention.unit import DICE_EPSILON, ActivationUnit, Moments


class LayerActivation(Protocol):
    """h = act(z), and its derivatives."""

    @property
    def alpha_gradient(self) -> Tensor | None:
        """The sum so far `[H]`; None if there is no alpha."""

    def forward(self, z: Tensor) -> Tensor:
        """Returns h `[P, H]`."""

    def backward(self, gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
        """Turns the gradient of h into that of z and adds up alpha's."""


class _Sigmoid:
    """1 / (1 + exp(-z))."""

    alpha_gradient = None

    def forward(self, z: Tensor) -> Tensor:
        return z.sigmoid_()

    def backward(self, gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
        return torch.ops.aten.sigmoid_backward.grad_input(gradient, h, grad_input=gradient)


class _PReLU:
    """z where positive, alpha * z elsewhere."""

    def __init__(self, alpha: Tensor) -> None:
        self.alpha = alpha
        self.alpha_gradient = torch.zeros_like(alpha)

    def forward(self, z: Tensor) -> Tensor:
        return torch.prelu(z, self.alpha)

    def backward(self, gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
        self.alpha_gradient += (gradient * z.clamp(max=0)).sum(0)
        # 1 where z is positive and alpha elsewhere; on CPU torch.where takes fifteen times as long
        positive = z.sign().clamp_(min=0)
        return gradient.mul_(torch.addcmul(self.alpha, 1 - self.alpha, positive))


class _Dice:
    """z * (alpha + (1 - alpha) * p) with p = sigmoid((z - mean) / sqrt(variance + eps))."""

    def __init__(self, alpha: Tensor, moments: Moments) -> None:
        self.alpha = alpha
        self.alpha_gradient = torch.zeros_like(alpha)
        self.rate = torch.rsqrt(moments.variance + DICE_EPSILON)
        self.shift = -moments.mean * self.rate

    def _gate(self, z: Tensor) -> Tensor:
        return torch.addcmul(self.shift, z, self.rate).sigmoid_()

    def forward(self, z: Tensor) -> Tensor:
        return torch.addcmul(self.alpha, self._gate(z), 1 - self.alpha).mul_(z)

    def backward(self, gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
        gate = self._gate(z)
        closed = 1 - gate
        self.alpha_gradient += torch.mul(gradient, z).mul_(closed).sum(0)
        slope = torch.addcmul(self.alpha, gate, 1 - self.alpha)
        slope.addcmul_(closed.mul_(gate).mul_(z), (1 - self.alpha) * self.rate)
        return gradient.mul_(slope)


def build_activations(unit: ActivationUnit) -> list[LayerActivation]:
    """Builds one activation for each hidden layer; Dice takes the unit's own moments."""
    if unit.activation == "sigmoid":
        return [_Sigmoid() for _ in unit.weights[:-1]]
    if unit.activation == "prelu":
        return [_PReLU(alpha) for alpha in unit.alphas]
    return [_Dice(alpha, moments) for alpha, moments in zip(unit.alphas, unit.moments, strict=True)]
