from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from ranker.objectives.bce import BCE
from ranker.objectives.gramian_weights import GramianWeights, Method
from ranker.slots import TaskTargets

TASKS = ["a", "b"]


def step(objective: Any, directions: Tensor, labels: Tensor) -> Tensor:
    """One forward of tasks whose logits are linear in shared features; returns the loss."""
    features = torch.zeros(1, directions.shape[1], requires_grad=True)
    objective.watch(features)
    logits = {task: features @ row for task, row in zip(objective.tasks, directions, strict=True)}
    targets = {
        task: TaskTargets(labels=labels[i : i + 1], weights=torch.ones(1))
        for i, task in enumerate(objective.tasks)
    }
    loss, _ = objective(logits, targets)
    return loss


@pytest.mark.filterwarnings("ignore:You are solving a parameterized")
@pytest.mark.parametrize("method", get_args(Method))
def test_weights_are_those_of_the_aggregator_on_the_jacobian(method: Method) -> None:
    aggregation = pytest.importorskip("torchjd.aggregation")
    # conflicting gradients of different sizes: at logit 0 the slope is 0.5 - label
    directions = torch.tensor([[1.0, 0.0, 0.5], [-0.7, 0.4, 3.0]])
    labels = torch.tensor([1.0, 1.0])
    objective = GramianWeights(base=BCE, tasks=TASKS, method=method).train()
    step(objective, directions, labels)
    jacobian = -0.5 * directions
    jacobian = jacobian / jacobian.square().sum(1).mean().sqrt()
    built = {
        "pcgrad": lambda: aggregation.PCGrad(),
        "cagrad": lambda: aggregation.CAGrad(c=0.4),
        "mgda": lambda: aggregation.MGDA(),
        "nash_mtl": lambda: aggregation.NashMTL(2),
        "aligned_mtl": lambda: aggregation.AlignedMTL(),
        "imtl_g": lambda: aggregation.IMTLG(),
        "upgrad": lambda: aggregation.UPGrad(),
    }[method]()
    expected = built(jacobian.double()).float()
    torch.testing.assert_close(objective.weights @ jacobian, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:You are solving a parameterized")
@pytest.mark.parametrize("method", get_args(Method))
def test_small_gradients_have_the_weights_of_large_ones(method: Method) -> None:
    pytest.importorskip("torchjd.aggregation")
    directions = torch.tensor([[1.0, 0.0, 0.5], [-0.7, 0.4, 3.0]])
    large, small = (GramianWeights(base=BCE, tasks=TASKS, method=method).train() for _ in range(2))
    step(large, directions, torch.ones(2))
    # as of a mean over 10^5 rows
    step(small, 1e-5 * directions, torch.ones(2))
    assert small.weights.abs().sum() > 0.1
    torch.testing.assert_close(small.weights, large.weights, rtol=1e-2, atol=1e-3)


def test_pcgrad_draws_alike_after_a_resume() -> None:
    pytest.importorskip("torchjd")
    torch.manual_seed(0)
    directions, labels = torch.randn(4, 6), torch.ones(4)
    tasks = ["a", "b", "c", "d"]
    whole = GramianWeights(base=BCE, tasks=tasks, method="pcgrad").train()
    step(whole, directions, labels)
    parts = GramianWeights(base=BCE, tasks=tasks, method="pcgrad").train()
    parts.load_state_dict(whole.state_dict())
    torch.manual_seed(5)
    step(parts, directions, labels)
    torch.manual_seed(6)
    step(whole, directions, labels)
    assert torch.equal(parts.weights, whole.weights)


def test_evaluation_and_a_task_without_rows_keep_the_weights() -> None:
    pytest.importorskip("torchjd")
    objective = GramianWeights(base=BCE, tasks=TASKS, method="mgda").train()
    step(objective, torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.ones(2))
    before = objective.weights.clone()
    assert not torch.equal(before, torch.ones(2))
    step(objective, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.ones(2))
    assert torch.equal(objective.weights, before)
    with torch.no_grad():
        step(objective.eval(), torch.tensor([[1.0, 0.0], [0.0, 5.0]]), torch.ones(2))
    assert torch.equal(objective.weights, before)


def test_the_weights_carry_no_gradient() -> None:
    pytest.importorskip("torchjd")
    objective = GramianWeights(base=BCE, tasks=TASKS, method="mgda").train()
    tower = nn.Linear(2, 2, bias=False)
    features = torch.ones(1, 2, requires_grad=True)
    objective.watch(features)
    both = tower(features)
    target = TaskTargets(labels=torch.ones(1), weights=torch.ones(1))
    loss, parts = objective({"a": both[:, 0], "b": both[:, 1]}, {"a": target, "b": target})
    weights = objective.weights.clone()
    expected = torch.autograd.grad(
        weights[0] * parts["a"] + weights[1] * parts["b"], tower.weight, retain_graph=True
    )
    torch.testing.assert_close(torch.autograd.grad(loss, tower.weight), expected)


def test_a_method_must_be_known() -> None:
    with pytest.raises(ValueError, match=r"objective\.method is 'best'; must be one of pcgrad"):
        GramianWeights(base=BCE, tasks=TASKS, method="best")  # type: ignore[arg-type]
