"""What a benchmark of an op consists of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

Variant = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One set of inputs, and several ways to the same output.

    Attributes:
        name: as in the table of the README.
        leaves: float32 inputs; all of them get gradients.
        oracle: the output from float64 leaves.
        variants: the first is the baseline of the ratios.
    """

    name: str
    leaves: tuple[Tensor, ...]
    oracle: Variant
    variants: dict[str, Variant]
