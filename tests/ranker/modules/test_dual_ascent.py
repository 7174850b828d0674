"""Dual ascent on convex problems whose solution and multiplier are known in closed form."""

import math

import pytest
import torch
from torch import Tensor

from ranker.modules.dual_ascent import DualAscent, DualOptions

ALL = torch.tensor([True])


def options_of(**options: float) -> DualOptions:
    """Plain ascent from 0, but for what is given."""
    return DualOptions(**({"initial": 0.0, "smoothing": 0.0, "damping": 0.0} | options))


def solve(
    options: DualOptions, slack: float, *, steps: int, primal_lr: float, rescale: bool = True
) -> tuple[Tensor, float]:
    """Minimises |x - a|^2 / 2 subject to x^T H x / 2 <= slack from x = 0.

    Returns:
        x [2] and the multiplier.
    """
    target, curvature = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.5])
    x = torch.zeros(2, requires_grad=True)
    ascent = DualAscent(1, options)
    ascent.start(ALL)
    for _ in range(steps):
        held = (curvature * x.square()).sum() / 2
        weight = ascent.effective()[0]
        loss = ((x - target).square().sum() / 2 + weight * held) / (1 + weight if rescale else 1)
        (gradient,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            x -= primal_lr * gradient
        ascent.update((held.detach() - slack).reshape(1), ALL)
    return x.detach(), float(ascent.multipliers)


def analytic(slack: float) -> tuple[Tensor, float]:
    """The same by bisection on the multiplier: x = a / (1 + lambda H)."""
    target = torch.tensor([1.0, 2.0], dtype=torch.float64)
    curvature = torch.tensor([2.0, 0.5], dtype=torch.float64)
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        x = target / (1 + middle * curvature)
        low, high = (middle, high) if (curvature * x * x).sum() / 2 > slack else (low, middle)
    return (target / (1 + low * curvature)).float(), low


@pytest.mark.parametrize(
    "options",
    [
        options_of(lr=0.1),
        options_of(lr=0.1, smoothing=0.9, damping=1.0),
        options_of(lr=0.1, proportional=5.0, nu=0.5),
    ],
    ids=["ascent", "damped", "nuPI"],
)
def test_solution_and_multiplier_are_the_analytic_ones(options: DualOptions) -> None:
    x, multiplier = solve(options, slack=0.2, steps=1500, primal_lr=0.2)
    expected_x, expected = analytic(0.2)
    torch.testing.assert_close(x, expected_x, rtol=0, atol=1e-3)
    assert multiplier == pytest.approx(expected, abs=1e-3)


def test_the_multiplier_follows_the_square_root_law_of_the_slack() -> None:
    # lambda = sqrt(g^T H^-1 g / (2 slack)) for small slack, with g the gradient of the other loss
    found = {}
    for slack in (0.00025, 0.001):
        law = math.sqrt((1.0**2 / 2.0 + 2.0**2 / 0.5) / (2 * slack))
        # far from the solution a large rate would wind the multiplier up
        options = options_of(lr=0.01 * law / slack, initial=0.8 * law)
        _, found[slack] = solve(options, slack, steps=1000, primal_lr=0.3)
        assert found[slack] == pytest.approx(analytic(slack)[1], rel=1e-3)
        assert found[slack] == pytest.approx(law, rel=0.07)
    assert found[0.00025] / found[0.001] == pytest.approx(2.0, rel=0.05)


def test_ascent_moves_as_cooper_does() -> None:
    cooper = pytest.importorskip("cooper")
    target, lr = torch.tensor([1.0, 2.0]), 0.1

    class Problem(cooper.ConstrainedMinimizationProblem):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            multiplier = cooper.multipliers.DenseMultiplier(num_constraints=1)
            self.held = cooper.Constraint(
                constraint_type=cooper.ConstraintType.INEQUALITY, multiplier=multiplier
            )

        def compute_cmp_state(self, x: Tensor) -> object:
            loss = (x - target).square().sum() / 2
            violation = (x.square().sum() / 2 - 0.3).reshape(1)
            state = cooper.ConstraintState(violation=violation)
            return cooper.CMPState(loss=loss, observed_constraints={self.held: state})

    problem, theirs = Problem(), torch.zeros(2, requires_grad=True)
    optimizer = cooper.optim.SimultaneousOptimizer(
        cmp=problem,
        primal_optimizers=torch.optim.SGD([theirs], lr=lr),
        dual_optimizers=torch.optim.SGD(problem.dual_parameters(), lr=lr, maximize=True),
    )
    ours = torch.zeros(2, requires_grad=True)
    ascent = DualAscent(1, options_of(lr=lr))
    ascent.start(ALL)
    for _ in range(200):
        held = ours.square().sum() / 2
        loss = (ours - target).square().sum() / 2 + ascent.effective()[0] * held
        (gradient,) = torch.autograd.grad(loss, ours)
        violation = (held.detach() - 0.3).reshape(1)
        with torch.no_grad():
            ours -= lr * gradient
        ascent.update(violation, ALL)
        optimizer.roll(compute_cmp_state_kwargs={"x": theirs})
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            ascent.multipliers, problem.held.multiplier().detach(), rtol=1e-5, atol=1e-6
        )
    assert ascent.multipliers[0] > 0.5


def test_sgd_with_a_large_dual_rate_needs_rescaling() -> None:
    # a slack of 0 has no finite multiplier, so it grows until the learning rate is too large
    options = options_of(lr=50.0, max=1e9)
    plain, _ = solve(options, slack=0.0, steps=300, primal_lr=0.3, rescale=False)
    rescaled, _ = solve(options, slack=0.0, steps=300, primal_lr=0.3)
    assert not plain.isfinite().all() or plain.abs().max() > 1e3
    assert rescaled.abs().max() < 0.1


def test_what_is_not_known_does_not_move() -> None:
    ascent = DualAscent(2, options_of(lr=1.0, smoothing=0.5, initial=2.0))
    ascent.start(torch.tensor([True, False]))
    ascent.update(torch.tensor([1.0, 1.0]), torch.tensor([True, False]))
    assert ascent.multipliers.tolist() == [3.0, 0.0]
    ascent.update(torch.tensor([math.inf, 1.0]), torch.tensor([False, False]))
    assert ascent.multipliers.tolist() == [3.0, 0.0]
    assert ascent.updates.tolist() == [1.0, 0.0]


def test_multipliers_stay_in_their_range_and_count_how_long() -> None:
    ascent = DualAscent(1, options_of(lr=10.0, max=15.0))
    ascent.start(ALL)
    for violation in (-1.0, 1.0, 1.0, 1.0):
        ascent.update(torch.tensor([violation]), ALL)
    assert ascent.multipliers.tolist() == [15.0]
    assert ascent.updates_at_max.tolist() == [2.0]
    assert ascent.active_updates.tolist() == [3.0]
    ascent.update(torch.tensor([-1.0]), ALL)
    assert ascent.updates_at_max.tolist() == [0.0]


@pytest.mark.parametrize(
    ("option", "value"), [("lr", 0.0), ("smoothing", 1.0), ("initial", 2000.0), ("damping", -1.0)]
)
def test_bad_options_are_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option} is {value}; it must"):
        options_of(**{option: value})
