"""A trial step: weights moved down their gradients for as long as something is measured there."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetaOptions:
    """First-order Meta-Wrapper: selectors learn from how the rest does after a step.

    Attributes:
        encoders: sequence encoders whose parameters select behaviours (phi).
        rate: size of the trial step of everything else (theta).
    """

    encoders: list[str]
    rate: float

    def __post_init__(self) -> None:
        if not self.encoders:
            raise ValueError("trainer.meta.encoders is empty; name the encoders that select")
        if self.rate <= 0:
            raise ValueError(f"trainer.meta.rate is {self.rate}; it must be positive")


@contextmanager
def look_ahead(parameters: Iterable[Tensor], *, rate: float) -> Iterator[None]:
    """Moves parameters by -rate times their gradient, and back at the end, exactly.

    Args:
        parameters: those without a gradient stay.
        rate: size of the step.
    """
    moved = [(p, p.detach().clone(), p.grad) for p in parameters if p.grad is not None]
    try:
        with torch.no_grad():
            for parameter, before, gradient in moved:
                parameter.copy_(before - rate * gradient)
        yield
    finally:
        with torch.no_grad():
            for parameter, before, _ in moved:
                parameter.copy_(before)
