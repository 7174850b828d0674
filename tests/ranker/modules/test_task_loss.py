import pytest
import torch

from ranker.modules.task_loss import row_losses, task_loss, weighted_sum
from ranker.slots import TaskTargets


def test_small_probabilities_survive_bf16() -> None:
    logit, label = torch.tensor([-9.0]).bfloat16(), torch.tensor([0.0])
    logit.requires_grad_()
    loss = row_losses(logit, label)
    assert loss.item() == pytest.approx(1.2340e-4, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logit)
    assert gradient.item() == pytest.approx(1.2339e-4, rel=4e-3)


def test_rows_without_weight_do_not_count() -> None:
    target = TaskTargets(labels=torch.tensor([1.0, 1.0]), weights=torch.tensor([1.0, 0.0]))
    assert task_loss(torch.zeros(2), target).item() == pytest.approx(0.693147, rel=1e-5)


def test_names_without_a_weight_weigh_one() -> None:
    parts = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert weighted_sum(parts, {"a": 0.5}).item() == 4.0
