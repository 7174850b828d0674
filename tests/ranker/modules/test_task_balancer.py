from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from ranker.modules.task_balancer import TaskBalancer, TaskLosses, reduce_losses
from ranker.modules.task_loss import task_loss
from ranker.objectives.bce import BCE
from ranker.objectives.esmm import ESMM
from ranker.objectives.square_auc import SquareAUC
from ranker.slots import TaskTargets


class Halves(TaskBalancer):
    def weigh(self, losses: Tensor) -> Tensor:
        return torch.tensor([0.5, 0.25])


def draw(*tasks: str) -> tuple[dict[str, Tensor], dict[str, TaskTargets]]:
    torch.manual_seed(0)
    logits = {task: torch.randn(8, requires_grad=True) for task in tasks}
    targets = {
        task: TaskTargets(labels=(torch.rand(8) < 0.5).float(), weights=torch.ones(8))
        for task in tasks
    }
    return logits, targets


def losses_of(
    logits: Mapping[str, Tensor], targets: Mapping[str, TaskTargets]
) -> dict[str, Tensor]:
    return {task: task_loss(logits[task], targets[task]) for task in logits}


def test_tasks_are_weighed_in_their_order() -> None:
    logits, targets = draw("like", "ctr")
    objective = Halves(base=BCE, tasks=["ctr", "like"], parts=None)
    loss, parts = objective(logits, targets)
    losses = losses_of(logits, targets)
    torch.testing.assert_close(loss, 0.5 * losses["ctr"] + 0.25 * losses["like"])
    assert set(parts) == {"ctr", "like"}


def test_a_task_may_have_several_parts_with_their_weights_in_the_base() -> None:
    logits, targets = draw("ctr", "like")
    objective = Halves(
        base=lambda: SquareAUC(tasks=["ctr"], auc_weight=3.0),
        tasks=["ctr", "like"],
        parts={"ctr": ["ctr", "ctr_auc"]},
    )
    loss, parts = objective(logits, targets)
    expected = 0.5 * (parts["ctr"] + 3.0 * parts["ctr_auc"]) + 0.25 * parts["like"]
    torch.testing.assert_close(loss, expected)


def test_parts_that_weigh_nothing_belong_to_nobody() -> None:
    logits, targets = draw("ctr", "cvr", "ctcvr")
    objective = Halves(base=lambda: ESMM(conditional=["cvr"]), tasks=["ctr", "ctcvr"], parts=None)
    loss, parts = objective(logits, targets)
    torch.testing.assert_close(loss, 0.5 * parts["ctr"] + 0.25 * parts["ctcvr"])


def test_losses_of_a_step_are_means_over_rows_of_its_batches() -> None:
    objective = Halves(base=BCE, tasks=["ctr", "like"], parts=None).train()
    seen = []
    for rows in (2, 6):
        logits, targets = draw("ctr", "like")
        weights = (torch.arange(8) < rows).float()
        targets["ctr"] = TaskTargets(labels=targets["ctr"].labels, weights=weights)
        targets["like"] = TaskTargets(labels=targets["like"].labels, weights=torch.zeros(8))
        objective(logits, targets)
        seen.append(float(losses_of(logits, targets)["ctr"].detach()))
    losses, known = objective.take_losses()
    assert known.tolist() == [True, False]
    assert float(losses[0]) == pytest.approx((2 * seen[0] + 6 * seen[1]) / 8, rel=1e-5)


def test_recorded_batches_belong_to_no_step() -> None:
    objective = Halves(base=BCE, tasks=["ctr", "like"], parts=None).train()
    with objective.recording() as record:
        objective(*draw("ctr", "like"))
    with torch.no_grad():
        objective(*draw("ctr", "like"))
    objective.eval()(*draw("ctr", "like"))
    objective.train()(*draw("ctr", "like"))
    assert len(record) == 1
    assert len(objective._pending) == 1


def test_losses_are_reduced_batch_by_batch() -> None:
    seen = [
        TaskLosses(losses=torch.tensor([1.0, 2.0]), rows=torch.tensor([3.0, 0.0])),
        TaskLosses(losses=torch.tensor([4.0, 5.0]), rows=torch.tensor([6.0, 7.0])),
    ]
    losses, rows = reduce_losses(seen)
    assert losses.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert rows.tolist() == [[3.0, 0.0], [6.0, 7.0]]


@pytest.mark.parametrize(
    ("tasks", "parts", "message"),
    [
        (["ctr", "buy"], None, "objective.tasks names 'buy'; objective.base has losses for ctr"),
        (["ctr", "like"], {"ctr": ["ctr", "x"]}, "objective.tasks names 'x'"),
        (["ctr", "like"], None, "objective.tasks leaves out 'view', which objective.base has a"),
    ],
)
def test_losses_and_tasks_must_fit(
    tasks: list[str], parts: dict[str, list[str]] | None, message: str
) -> None:
    objective = Halves(base=BCE, tasks=tasks, parts=parts)
    with pytest.raises(ValueError, match=message):
        objective(*draw("ctr", "like", "view"))


@pytest.mark.parametrize("tasks", [["ctr"], ["ctr", "ctr"]])
def test_there_must_be_tasks_to_weigh(tasks: list[str]) -> None:
    with pytest.raises(ValueError, match="it must list two or more different tasks"):
        Halves(base=BCE, tasks=tasks, parts=None)
    with pytest.raises(ValueError, match=r"objective\.parts names 'x'; it must be one of ctr"):
        Halves(base=BCE, tasks=["ctr", "like"], parts={"x": ["ctr"]})
