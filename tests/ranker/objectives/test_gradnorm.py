import pytest
import torch

from ranker.objectives.bce import BCE
from ranker.objectives.gradnorm import GradNorm


def train(objective: GradNorm, norms: list[float], losses: list[float], steps: int = 1) -> None:
    gramian = torch.diag(torch.tensor(norms).square())
    for _ in range(steps):
        objective.weights.copy_(objective.weights_of(gramian, torch.tensor(losses)))


def test_gradients_become_of_equal_size() -> None:
    objective = GradNorm(base=BCE, tasks=["a", "b"], alpha=1.0, lr=0.01)
    train(objective, [1.0, 3.0], [0.5, 0.5], steps=300)
    assert float(objective.weights.sum()) == pytest.approx(2, rel=1e-5)
    # w_a * 1 = w_b * 3, within the size of a step
    torch.testing.assert_close(objective.weights, torch.tensor([1.5, 0.5]), rtol=0, atol=0.03)


def test_a_task_that_falls_slowly_weighs_more() -> None:
    objective = GradNorm(base=BCE, tasks=["a", "b"], alpha=1.0, lr=0.01)
    train(objective, [1.0, 1.0], [1.0, 1.0])
    assert objective.first_losses.tolist() == [1.0, 1.0]
    train(objective, [1.0, 1.0], [0.9, 0.3], steps=300)
    # rates 1.5 and 0.5 of the mean
    torch.testing.assert_close(objective.weights, torch.tensor([1.5, 0.5]), rtol=0, atol=0.03)


def test_a_batch_without_rows_of_a_task_changes_nothing() -> None:
    objective = GradNorm(base=BCE, tasks=["a", "b"])
    train(objective, [1.0, 0.0], [0.5, 0.0])
    assert objective.weights.tolist() == [1.0, 1.0]
    assert objective.first_losses.tolist() == [0.0, 0.0]


def test_the_rate_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"objective\.lr is 0"):
        GradNorm(base=BCE, tasks=["a", "b"], lr=0)
