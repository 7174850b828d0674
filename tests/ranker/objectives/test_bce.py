import math

import pytest
import torch

from ranker.objectives.bce import BCE
from ranker.slots import TaskTargets


def test_bce_is_the_weighted_mean_over_valid_rows() -> None:
    logits = torch.tensor([0.3, -1.2, 2.0, 50.0])
    target = TaskTargets(
        labels=torch.tensor([1.0, 0.0, 1.0, 0.0]), weights=torch.tensor([1.0, 2.0, 1.0, 0.0])
    )
    p = torch.sigmoid(logits.double())
    expected = -(math.log(p[0]) + 2 * math.log(1 - p[1]) + math.log(p[2])) / 4
    loss, parts = BCE(task_weights={"ctr": 0.5})({"ctr": logits}, {"ctr": target})
    assert float(parts["ctr"]) == pytest.approx(expected, rel=1e-6)
    assert float(loss) == pytest.approx(0.5 * expected, rel=1e-6)


def test_a_batch_without_valid_rows_costs_nothing() -> None:
    logits = torch.tensor([0.3, -1.2], requires_grad=True)
    target = TaskTargets(labels=torch.zeros(2), weights=torch.zeros(2))
    loss, _ = BCE()({"ctr": logits}, {"ctr": target})
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_a_weight_for_an_unknown_task_is_refused() -> None:
    target = TaskTargets(labels=torch.zeros(1), weights=torch.ones(1))
    with pytest.raises(ValueError, match="task_weights names 'cvr'; the head predicts ctr"):
        BCE(task_weights={"cvr": 1.0})({"ctr": torch.zeros(1)}, {"ctr": target})
