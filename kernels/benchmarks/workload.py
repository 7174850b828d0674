"""What a benchmark of an op consists of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

Variant = Callable[[Sequence[Tensor]], Tensor]


class Cost(NamedTuple):
    """What cannot be avoided: numbers read or written once, and arithmetic of the products."""

    bytes: float
    flops: float


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Milliseconds on an H200, said before any measurement; None where nothing was said.

    Attributes:
        name: of the goal.
        variant: whose goal it is.
        forward, both: what is to be reached, without and with the backward.
        expected_forward, expected_both: what was predicted for the kernels as they are.
        ratios: how many times the time of another variant is to be reached, by its name.
    """

    name: str
    variant: str
    forward: float | None = None
    both: float | None = None
    expected_forward: float | None = None
    expected_both: float | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)


def keep_output(_leaves: Sequence[Tensor], output: Tensor) -> Tensor:
    """Has the output itself compared."""
    return output


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One set of inputs, and several ways to the same output.

    Attributes:
        name: as in the tables.
        leaves: inputs; all of them get gradients, if there are any.
        oracle: the output from float64 leaves.
        variants: the first is the baseline of the ratios, the last the op.
        judge: from leaves and an output to what is compared with the oracle's; it is not timed.
        forward: cost without gradients.
        both: cost with gradients; None where there are none.
        goal: on a GPU.
    """

    name: str
    leaves: tuple[Tensor, ...]
    oracle: Variant
    variants: dict[str, Variant]
    forward: Cost
    both: Cost | None = None
    judge: Callable[[Sequence[Tensor], Tensor], Tensor] = keep_output
    goal: Goal | None = None


def make_consecutive(lengths: Tensor) -> Tensor:
    """Returns windows `[C, 2]` of the given lengths, one behind the other."""
    ends = lengths.cumsum(0)
    return torch.stack([ends - lengths, ends], dim=1)


def draw_lengths(count: int, *, mean_log: float, longest: int) -> Tensor:
    """Draws lengths from a log-normal distribution, 1 to `longest`."""
    generator = torch.Generator().manual_seed(2026)
    drawn = torch.randn(count, generator=generator).mul(0.95).add(mean_log).exp()
    return drawn.round().clamp(1, longest).long()


def compile_variant(variant: Variant) -> Variant:
    """Returns the variant behind torch.compile, which compiles when it is checked."""
    return torch.compile(variant, dynamic=False)
