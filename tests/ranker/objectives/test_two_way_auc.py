from typing import Any

import pytest
import torch

from ranker.objectives.two_way_auc import TwoWayAUC
from ranker.slots import TaskTargets


def draw(rows: int = 40) -> tuple[torch.Tensor, TaskTargets]:
    torch.manual_seed(0)
    logit = torch.randn(rows, dtype=torch.float64, requires_grad=True)
    labels = (torch.rand(rows) < 0.3).double()
    return logit, TaskTargets(labels=labels, weights=torch.randint(0, 3, (rows,)).double())


def pair_by_pair(
    logit: torch.Tensor, target: TaskTargets, weighting: str, gamma: float, one_way: bool
) -> Any:
    score = torch.sigmoid(logit)
    if weighting == "poly":
        positive, negative = (1 - score) ** gamma, score**gamma
    else:
        positive, negative = 1 - torch.exp(-gamma * (1 - score)), 1 - torch.exp(-gamma * score)
    total: Any = 0.0
    count: Any = 0.0
    for i in target.labels.nonzero()[:, 0]:
        for j in (target.labels == 0).nonzero()[:, 0]:
            weight = target.weights[i] * target.weights[j]
            hard = (1 if one_way else positive[i]) * negative[j]
            total = total + weight * hard * (1 - (score[i] - score[j])) ** 2
            count = count + weight
    return total / count


@pytest.mark.parametrize("weighting", ["poly", "exp"])
@pytest.mark.parametrize(("gamma", "one_way"), [(1.0, False), (2.5, False), (0.5, True)])
def test_six_means_are_the_mean_over_pairs(weighting: Any, gamma: float, one_way: bool) -> None:
    logit, target = draw()
    objective = TwoWayAUC(
        tasks=["ctr"], auc_weight=0.3, weighting=weighting, gamma=gamma, one_way=one_way
    )
    loss, parts = objective({"ctr": logit}, {"ctr": target})
    expected = pair_by_pair(logit, target, weighting, gamma, one_way)
    torch.testing.assert_close(parts["ctr_auc"], expected)
    torch.testing.assert_close(loss, parts["ctr"] + 0.3 * parts["ctr_auc"])
    (found_gradient,) = torch.autograd.grad(parts["ctr_auc"], logit)
    (expected_gradient,) = torch.autograd.grad(expected, logit)
    torch.testing.assert_close(found_gradient, expected_gradient)


def test_one_class_alone_adds_nothing() -> None:
    logit, target = draw()
    target = TaskTargets(labels=torch.zeros_like(target.labels), weights=target.weights)
    _, parts = TwoWayAUC(tasks=["ctr"], auc_weight=0.3)({"ctr": logit}, {"ctr": target})
    assert parts["ctr_auc"].item() == 0


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"objective\.weighting is 'log'; must be poly or exp"):
        TwoWayAUC(tasks=["ctr"], auc_weight=0.3, weighting="log")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"objective\.gamma is 0"):
        TwoWayAUC(tasks=["ctr"], auc_weight=0.3, gamma=0)
