import pytest
import torch
from sklearn.metrics import average_precision_score

from ranker.objectives.auprc import AUPRC
from ranker.slots import TaskTargets


def draw(rows: int = 60) -> tuple[torch.Tensor, TaskTargets]:
    torch.manual_seed(0)
    logit = torch.randn(rows, dtype=torch.float64, requires_grad=True)
    labels = (torch.rand(rows) < 0.3).double()
    return logit, TaskTargets(labels=labels, weights=torch.randint(0, 3, (rows,)).double())


def test_it_is_the_mean_of_ratios() -> None:
    logit, target = draw()
    loss, parts = AUPRC(tasks=["ctr"], auc_weight=0.3)({"ctr": logit}, {"ctr": target})
    s = torch.sigmoid(logit)
    total, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for i in range(60):
        if target.labels[i] == 0 or target.weights[i] == 0:
            continue
        among, all_rows = torch.zeros_like(total), torch.zeros_like(total)
        for j in range(60):
            part = target.weights[j] * (0.6 - (s[i] - s[j])).clamp_min(0) ** 2
            among, all_rows = among + part * target.labels[j], all_rows + part
        total, count = total + target.weights[i] * among / all_rows, count + target.weights[i]
    torch.testing.assert_close(parts["ctr_auc"], 1 - total / count)
    torch.testing.assert_close(loss, parts["ctr"] + 0.3 * parts["ctr_auc"])


def test_descending_raises_average_precision() -> None:
    logit, target = draw()
    objective = AUPRC(tasks=["ctr"], auc_weight=1.0, task_weights={"ctr": 0.0})
    target = TaskTargets(labels=target.labels, weights=torch.ones_like(target.weights))
    free = logit.detach().clone().requires_grad_()
    before = average_precision_score(target.labels, free.detach())
    for _ in range(20):
        loss, _ = objective({"ctr": free}, {"ctr": target})
        (gradient,) = torch.autograd.grad(loss, free)
        free = (free - 5 * gradient).detach().requires_grad_()
    assert average_precision_score(target.labels, free.detach()) > before + 0.1


def test_no_positives_add_nothing() -> None:
    logit, target = draw()
    target = TaskTargets(labels=torch.zeros_like(target.labels), weights=target.weights)
    _, parts = AUPRC(tasks=["ctr"], auc_weight=0.3)({"ctr": logit}, {"ctr": target})
    assert parts["ctr_auc"].item() == 0


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"objective\.margin is 0"):
        AUPRC(tasks=["ctr"], auc_weight=0.3, margin=0)
