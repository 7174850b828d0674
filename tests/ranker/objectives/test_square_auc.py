from typing import Any

import pytest
import torch

from ranker.objectives.square_auc import SquareAUC
from ranker.slots import TaskTargets


def pairwise(logit: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> Any:
    """The loss pair by pair."""
    score = torch.sigmoid(logit)
    total: Any = 0.0
    count: Any = 0.0
    for i in labels.nonzero()[:, 0]:
        for j in (labels == 0).nonzero()[:, 0]:
            weight = weights[i] * weights[j]
            total = total + weight * (1 - (score[i] - score[j])) ** 2
            count = count + weight
    return total / count


def draw(rows: int = 40) -> tuple[torch.Tensor, TaskTargets]:
    torch.manual_seed(0)
    logit = torch.randn(rows, dtype=torch.float64, requires_grad=True)
    labels = (torch.rand(rows) < 0.3).double()
    return logit, TaskTargets(labels=labels, weights=torch.randint(0, 3, (rows,)).double())


def test_moments_are_the_mean_over_pairs() -> None:
    logit, target = draw()
    loss, parts = SquareAUC(tasks=["ctr"], auc_weight=0.3)({"ctr": logit}, {"ctr": target})
    expected = pairwise(logit, target.labels, target.weights)
    torch.testing.assert_close(parts["ctr_auc"], expected)
    torch.testing.assert_close(loss, parts["ctr"] + 0.3 * parts["ctr_auc"])
    (found_gradient,) = torch.autograd.grad(parts["ctr_auc"], logit)
    (expected_gradient,) = torch.autograd.grad(expected, logit)
    torch.testing.assert_close(found_gradient, expected_gradient)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_alone_adds_nothing(label: float) -> None:
    logit, target = draw()
    target = TaskTargets(labels=torch.full_like(target.labels, label), weights=target.weights)
    _, parts = SquareAUC(tasks=["ctr"], auc_weight=0.3)({"ctr": logit}, {"ctr": target})
    assert parts["ctr_auc"].item() == 0
    (gradient,) = torch.autograd.grad(parts["ctr_auc"], logit)
    assert gradient.abs().max() == 0


def test_bad_options_are_named() -> None:
    logit, target = draw()
    with pytest.raises(ValueError, match=r"objective\.tasks names 'cvr'; the head predicts ctr"):
        SquareAUC(tasks=["cvr"], auc_weight=0.3)({"ctr": logit}, {"ctr": target})
    with pytest.raises(ValueError, match=r"objective\.auc_weight is 0"):
        SquareAUC(tasks=["ctr"], auc_weight=0)
    with pytest.raises(ValueError, match=r"objective\.tasks is empty"):
        SquareAUC(tasks=[], auc_weight=0.1)
