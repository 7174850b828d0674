import math
from typing import Any

import pytest
import torch

from ranker.modules.task_balancer import TaskLosses
from ranker.objectives.bce import BCE
from ranker.objectives.dwa import DWA


def build(**options: Any) -> DWA:
    return DWA(base=BCE, tasks=["a", "b"], window_steps=2, **options)


def step(objective: DWA, losses: list[float], rows: list[float]) -> None:
    objective._pending.append(TaskLosses(losses=torch.tensor(losses), rows=torch.tensor(rows)))
    objective.after_step()


def test_weights_follow_the_paper_window_by_window() -> None:
    objective = build(temperature=0.5)
    for losses in ([2.0, 1.0], [4.0, 3.0]):
        step(objective, losses, [1.0, 1.0])
    assert objective.weights.tolist() == [1.0, 1.0]
    for losses in ([3.0, 1.0], [1.5, 1.0]):
        step(objective, losses, [1.0, 1.0])
    # means fell from 3 to 2.25 and from 2 to 1
    slow, fast = math.exp(0.75 / 0.5), math.exp(0.5 / 0.5)
    expected = torch.tensor([2 * slow / (slow + fast), 2 * fast / (slow + fast)])
    torch.testing.assert_close(objective.weights, expected)


def test_batches_without_rows_of_a_task_do_not_count() -> None:
    objective = build()
    step(objective, [2.0, 0.0], [1.0, 0.0])
    step(objective, [4.0, 5.0], [1.0, 1.0])
    assert objective.before.tolist() == [3.0, 5.0]


def test_options_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"objective\.temperature is 0"):
        build(temperature=0.0)
    with pytest.raises(ValueError, match=r"objective\.window_steps is 0"):
        DWA(base=BCE, tasks=["a", "b"], window_steps=0)
