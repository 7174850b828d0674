"""The exact collapse of the activation unit's first layer.

    W [q; k; q - k; q * k]  =  (Wq + Wd) q  +  (Wk - Wd) k  +  Wp (q * k)

The first term belongs to a candidate and the second to a behaviour, so only the third is left for
every pair, and nothing of width 4D is ever built.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Collapsed(NamedTuple):
    """The three blocks of the first weight, each `[H1, D]`; or their gradients."""

    candidate: Tensor
    behavior: Tensor
    product: Tensor


def collapse(weight: Tensor) -> Collapsed:
    """Folds `[H1, 4D]`; differentiable."""
    query, key, difference, product = weight.chunk(4, dim=1)
    return Collapsed(query + difference, key - difference, product)


def uncollapse_gradient(gradient: Collapsed) -> Tensor:
    """Turns the gradients of the three blocks into that of the weight `[H1, 4D]`."""
    candidate, behavior, product = gradient
    return torch.cat([candidate, behavior, candidate - behavior, product], dim=1)


class PairTerms(Protocol):
    """(Wk - Wd) k + Wp (q * k) for blocks of pairs, with its own backward."""

    def add_forward(self, z: Tensor, key: Tensor, product: Tensor, behavior: Tensor) -> None:
        """Adds the terms to z `[P, H1]`; `behavior` `[P]` says which rows `key` `[P, D]` holds."""

    def backward(
        self, z_gradient: Tensor, key: Tensor, product: Tensor, behavior: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Returns the gradients of `key` (None: comes with `finish`) and of `product`."""

    def finish(self, behaviors_gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Adds what `backward` held back; returns the gradients of (Wk - Wd) and Wp."""


class _PerPair:
    """Projects the behaviour again in every pair: one product, `[k; q * k]` with both blocks."""

    def __init__(self, weights: Collapsed) -> None:
        self.weight = torch.cat([weights.behavior, weights.product], dim=1)
        self.gradient = torch.zeros_like(self.weight)

    def add_forward(self, z: Tensor, key: Tensor, product: Tensor, behavior: Tensor) -> None:
        z.addmm_(torch.cat([key, product], dim=1), self.weight.T)

    def backward(
        self, z_gradient: Tensor, key: Tensor, product: Tensor, behavior: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        self.gradient.addmm_(z_gradient.T, torch.cat([key, product], dim=1))
        key_gradient, product_gradient = (z_gradient @ self.weight).chunk(2, dim=1)
        return key_gradient, product_gradient

    def finish(self, behaviors_gradient: Tensor) -> tuple[Tensor, Tensor]:
        behavior, product = self.gradient.chunk(2, dim=1)
        return behavior, product


class _PerBehavior:
    """Projects every behaviour once, whatever the number of candidates that look at it."""

    def __init__(self, weights: Collapsed, behaviors: Tensor) -> None:
        self.weights = weights
        self.behaviors = behaviors
        self.projected = behaviors @ weights.behavior.T
        self.projected_gradient = torch.zeros_like(self.projected)
        self.product_gradient = torch.zeros_like(weights.product)

    def add_forward(self, z: Tensor, key: Tensor, product: Tensor, behavior: Tensor) -> None:
        z += self.projected.index_select(0, behavior)
        z.addmm_(product, self.weights.product.T)

    def backward(
        self, z_gradient: Tensor, key: Tensor, product: Tensor, behavior: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        self.projected_gradient.index_add_(0, behavior, z_gradient)
        self.product_gradient.addmm_(z_gradient.T, product)
        return None, z_gradient @ self.weights.product

    def finish(self, behaviors_gradient: Tensor) -> tuple[Tensor, Tensor]:
        behaviors_gradient.addmm_(self.projected_gradient, self.weights.behavior)
        return self.projected_gradient.T @ self.behaviors, self.product_gradient


def choose_pair_terms(weights: Collapsed, behaviors: Tensor, num_pairs: int) -> PairTerms:
    """Picks the faster of the two.

    Gathering a row of H1 numbers costs more than the `D x H1` product that it saves, unless
    windows overlap: on CPU the two break even at about 4 pairs for each behaviour.
    """
    if num_pairs > 4 * behaviors.shape[0]:
        return _PerBehavior(weights, behaviors)
    return _PerPair(weights)
