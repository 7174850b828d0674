"""Hidden activations with their derivatives, for code that writes its own backward.

Each is built for one layer. `forward` may overwrite z, and `backward` overwrites the gradient;
`z` and `h` are then what `forward` left in its argument and returned.
"""

from typing import Protocol

import torch
from torch import Tensor

from ranker_kernels.din_attention.unit import DICE_EPSILON, Layers, Moments


class LayerActivation(Protocol):
    """h = act(z), and its derivatives."""

    @property
    def alpha_gradient(self) -> Tensor | None:
        """The sum so far `[H]`; None if there is no alpha."""

    @property
    def moments_gradient(self) -> Moments | None:
        """The sums so far `[H]`; None if there are no moments."""

    def forward(self, z: Tensor) -> Tensor:
        """Returns h `[P, H]`."""

    def backward(self, gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
        """Turns the gradient of h into that of z and adds up alpha's."""


class _Sigmoid:
    """1 / (1 + exp(-z))."""

    alpha_gradient = moments_gradient = None

    def forward(self, z: Tensor) -> Tensor:
        return z.sigmoid_()

    def backward(self, gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
        return torch.ops.aten.sigmoid_backward.grad_input(gradient, h, grad_input=gradient)


class _PReLU:
    """z where positive, alpha * z elsewhere."""

    moments_gradient = None

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
        # sums of g and g s, with s = (z - mean) * rate and g the gradient of s
        self.sums = (torch.zeros_like(alpha), torch.zeros_like(alpha))

    @property
    def moments_gradient(self) -> Moments:
        # ds = -rate dmean - s rate^2 / 2 dvariance
        return Moments(-self.rate * self.sums[0], -0.5 * self.rate.square() * self.sums[1])

    def _standardize(self, z: Tensor) -> Tensor:
        return torch.addcmul(self.shift, z, self.rate)

    def forward(self, z: Tensor) -> Tensor:
        gate = self._standardize(z).sigmoid_()
        return torch.addcmul(self.alpha, gate, 1 - self.alpha).mul_(z)

    def backward(self, gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
        standard = self._standardize(z)
        gate = standard.sigmoid()
        closed = 1 - gate
        through_closed = torch.mul(gradient, z).mul_(closed)
        self.alpha_gradient += through_closed.sum(0)
        through_gate = through_closed.mul_(gate).mul_(1 - self.alpha)
        self.sums[0].add_(through_gate.sum(0))
        self.sums[1].add_(standard.mul_(through_gate).sum(0))
        slope = torch.addcmul(self.alpha, gate, 1 - self.alpha)
        return gradient.mul_(slope).addcmul_(through_gate, self.rate)


def build_activations(layers: Layers) -> list[LayerActivation]:
    """Builds one activation for each hidden layer; Dice takes the moments that come with it."""
    if layers.activation == "sigmoid":
        return [_Sigmoid() for _ in layers.weights[:-1]]
    if layers.activation == "prelu":
        return [_PReLU(alpha) for alpha in layers.alphas]
    return [_Dice(*parts) for parts in zip(layers.alphas, layers.moments, strict=True)]
