"""Lagrange multipliers of inequality constraints, moved by projected ascent."""

import dataclasses

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class DualOptions:
    """How multipliers move. e is a violation relative to the reference, positive when violated.

    Attributes:
        lr: rate of ascent, per update.
        initial: multiplier of a constraint when it becomes active.
        max: multipliers stay below; one that stays there tells of an infeasible problem.
        smoothing: e is averaged with this decay before it moves a multiplier; 0 takes it raw.
        proportional: K_P of nuPI control (Sohrabi et al., ICML 2024, algorithm 1); 0 is ascent.
        nu: decay of nuPI's own average.
        damping: of the modified differential method of multipliers (Platt and Barr, NeurIPS 1987):
            the weights see max(0, multiplier + damping * e), the equilibrium stays.
    """

    lr: float = 300.0
    initial: float = 3.0
    max: float = 1000.0
    smoothing: float = 0.5
    proportional: float = 0.0
    nu: float = 0.0
    damping: float = 300.0

    def __post_init__(self) -> None:
        rules = (
            ("lr", self.lr > 0, "be positive"),
            ("initial", 0 <= self.initial < self.max, "be in [0, max)"),
            ("smoothing", 0 <= self.smoothing < 1, "be in [0, 1)"),
            ("nu", 0 <= self.nu < 1, "be in [0, 1)"),
            ("proportional", self.proportional >= 0, "not be negative"),
            ("damping", self.damping >= 0, "not be negative"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}; it must {rule}")


class DualAscent(nn.Module):
    """lambda <- clip(lambda + lr (e + K_P (xi - xi_before)), 0, max), xi <- nu xi + (1 - nu) e.

    All state is in fp32 buffers, so that a checkpoint holds it exactly.

    Args:
        count: number of constraints.
        options: of the updates.
    """

    multipliers: Tensor
    violations: Tensor
    average: Tensor
    updates: Tensor
    active_updates: Tensor
    updates_at_max: Tensor

    def __init__(self, count: int, options: DualOptions) -> None:
        super().__init__()
        self.options = options
        for name in ("multipliers", "violations", "average"):
            self.register_buffer(name, torch.zeros(count))
        # how often each was moved, how often by a violation, and how often in a row at the maximum
        for name in ("updates", "active_updates", "updates_at_max"):
            self.register_buffer(name, torch.zeros(count))

    @torch.no_grad()
    def start(self, active: Tensor) -> None:
        """Starts anew with some constraints [count] active, the others without a multiplier."""
        for buffer in self.buffers():
            buffer.zero_()
        self.multipliers.copy_(active.to(self.multipliers) * self.options.initial)

    @torch.no_grad()
    def update(self, violations: Tensor, known: Tensor) -> None:
        """Moves the multipliers.

        Args:
            violations: [count] relative, positive where a constraint is violated.
            known: [count] False for constraints that are not active, or were not measured.
        """
        options = self.options
        violations = violations.to(self.multipliers)
        first = self.updates == 0
        smoothed = torch.lerp(violations, self.violations, options.smoothing)
        error = torch.where(first, violations, smoothed)
        average = torch.lerp(error, self.average, options.nu)
        # the first step has no past to differ from
        change = torch.where(first, 0.0, average - self.average)
        average = torch.where(first, error, average)
        moved = self.multipliers + options.lr * (error + options.proportional * change)
        moved = moved.clamp(0, options.max)
        self.violations.copy_(torch.where(known, error, self.violations))
        self.average.copy_(torch.where(known, average, self.average))
        self.multipliers.copy_(torch.where(known, moved, self.multipliers))
        self.updates += known
        self.active_updates += known & (error > 0)
        at_max = known & (self.multipliers >= options.max) & (self.violations > 0)
        self.updates_at_max.copy_(
            torch.where(known, at_max * (self.updates_at_max + 1), self.updates_at_max)
        )

    def effective(self) -> Tensor:
        """Returns the multipliers [count] with the damping force, as the weights see them."""
        if self.options.damping == 0:
            return self.multipliers
        # a constraint that was never moved has no violation
        return (self.multipliers + self.options.damping * self.violations).clamp_min(0)
