from typing import Any

import pytest
import torch
from torch import Tensor

from ranker.modules.constraints import ConstraintOptions, SlackOptions, mean_and_error
from ranker.modules.dual_ascent import DualOptions
from ranker.objectives.bce import BCE
from ranker.objectives.lagrangian import Lagrangian
from ranker.slots import TaskTargets

TASKS = ["a", "b", "c"]
LOSSES = torch.tensor([1.0, 2.0, 4.0])


def build(**options: Any) -> Lagrangian:
    return Lagrangian(base=BCE, priority=TASKS, **({"lower_weight": 0.0} | options))


def draw() -> tuple[dict[str, Tensor], dict[str, TaskTargets]]:
    torch.manual_seed(0)
    logits = {task: torch.randn(8, requires_grad=True) for task in TASKS}
    labels = {task: (torch.rand(8) < 0.5).float() for task in TASKS}
    return logits, {t: TaskTargets(labels=labels[t], weights=torch.ones(8)) for t in TASKS}


def batches(*means: float) -> Tensor:
    """Four batches of each task around a mean."""
    return torch.tensor([0.9, 1.0, 1.0, 1.1])[:, None] * torch.tensor(means)


def test_a_stage_improves_its_task_and_holds_those_before() -> None:
    objective = build()
    assert objective.num_stages == 3
    assert objective.weigh(LOSSES).tolist() == [1.0, 0.0, 0.0]
    objective.begin_stage(2, batches(1.0, 2.0, 4.0), None)
    assert objective.constrained(2) == [0, 1]
    objective.ascent.multipliers.copy_(torch.tensor([1.0, 2.0, 9.0]))
    # 1 for its own task, over 1 plus the multipliers of the two that are held
    torch.testing.assert_close(objective.weigh(LOSSES), torch.tensor([0.25, 0.5, 0.25]))
    objective.rescale = False
    assert objective.weigh(LOSSES).tolist() == [1.0, 2.0, 1.0]


def test_tasks_of_lower_priority_take_part_with_a_small_weight() -> None:
    objective = build(lower_weight=0.25)
    torch.testing.assert_close(objective.weigh(LOSSES), torch.tensor([1.0, 0.25, 0.25]) / 1.5)
    objective.begin_stage(1, batches(1.0, 2.0, 4.0), None)
    objective.ascent.multipliers[0] = 0.75
    torch.testing.assert_close(objective.weigh(LOSSES), torch.tensor([0.75, 1.0, 0.25]) / 2)


def test_the_loss_has_the_weights_and_no_gradient_of_them() -> None:
    objective = build()
    objective.begin_stage(1, batches(1.0, 2.0, 4.0), None)
    objective.ascent.multipliers[0] = 3.0
    logits, targets = draw()
    loss, parts = objective(logits, targets)
    torch.testing.assert_close(loss, 0.75 * parts["a"] + 0.25 * parts["b"])
    loss.backward()
    # towers of later tasks get a gradient of 0, not none: the reducer waits for it
    gradient = logits["c"].grad
    assert gradient is not None
    assert gradient.abs().max() == 0


def test_multipliers_follow_relative_violations_beyond_the_slack() -> None:
    objective = build(
        slack=SlackOptions(relative=0.1),
        dual=DualOptions(lr=2.0, smoothing=0.0, initial=0.0, damping=0.0),
    )
    objective.begin_stage(2, batches(1.0, 2.0, 4.0), None)
    torch.testing.assert_close(objective.slacks[:2], torch.tensor([0.1, 0.2]))
    known = torch.tensor([True, True, True])
    values = torch.tensor([1.3, 2.1, 9.0])
    objective.ascend(values, known, objective.references, objective.slacks)
    torch.testing.assert_close(objective.ascent.multipliers, torch.tensor([0.4, 0.0, 0.0]))
    record = objective.report()
    assert record["constraint/a/loss"] == pytest.approx(1.3)
    assert record["constraint/b/reference"] == pytest.approx(2.0)
    assert record["multiplier/a"] == pytest.approx(0.4)
    assert "multiplier/c" not in record


def test_a_metric_is_violated_when_it_falls() -> None:
    objective = build(
        constraints=ConstraintOptions(metrics={"a": "auc"}),
        slack=SlackOptions(relative=0.0, absolute=0.01),
        dual=DualOptions(lr=1.0, smoothing=0.0, initial=0.0, damping=0.0),
    )
    objective.begin_stage(1, batches(0.8, 2.0, 4.0), None)
    known = torch.tensor([True, True, True])
    for value, expected in ((0.85, 0.0), (0.75, 0.05)):
        values = torch.tensor([value, 2.0, 4.0])
        objective.ascend(values, known, objective.references, objective.slacks)
        assert float(objective.ascent.multipliers[0]) == pytest.approx(expected, abs=1e-6)
    assert objective.report()["constraint/a/auc"] == pytest.approx(0.75)


def test_the_slack_is_the_largest_of_its_kinds() -> None:
    valid = batches(1.0, 1.0, 1.0)
    _, error = mean_and_error(valid)
    objective = build(slack=SlackOptions(relative=0.001, standard_errors=2.0))
    objective.begin_stage(1, valid, None)
    torch.testing.assert_close(objective.slacks, 2 * error)
    objective = build(slack=SlackOptions(relative=0.001, standard_errors=2.0, absolute=5.0))
    objective.begin_stage(1, valid, None)
    assert objective.slacks.tolist() == [5.0, 5.0, 5.0]


def test_training_losses_move_multipliers_if_they_are_what_is_held() -> None:
    objective = build(
        constraints=ConstraintOptions(stream="train"),
        dual=DualOptions(lr=1.0, smoothing=0.0, initial=0.0, damping=0.0),
    ).train()
    objective.begin_stage(1, batches(0.1, 0.1, 0.1), batches(0.2, 0.2, 0.2))
    assert objective.references[0] == pytest.approx(0.2)
    objective(*draw())
    objective.after_step()
    assert objective.ascent.multipliers[0] > 0
    assert objective.ascent.updates.tolist() == [1.0, 0.0, 0.0]
    other = build(dual=DualOptions(smoothing=0.0, initial=0.0, damping=0.0)).train()
    other.begin_stage(1, batches(0.1, 0.1, 0.1), None)
    other(*draw())
    other.after_step()
    assert other.ascent.updates.sum() == 0


def test_simultaneous_holds_all_but_the_last_from_a_first_stage_or_given_values() -> None:
    objective = build(mode="simultaneous", weights={"a": 2.0})
    assert objective.num_stages == 2
    assert objective.weigh(LOSSES).tolist() == [0.5, 0.25, 0.25]
    assert (objective.constrained(1), objective.minimized(1)) == ([0, 1], 2)
    given = build(mode="simultaneous", references={"a": 0.5, "b": 0.6})
    assert given.num_stages == 1
    given.begin_stage(0, batches(1.0, 2.0, 4.0), None)
    torch.testing.assert_close(given.references[:2], torch.tensor([0.5, 0.6]))
    torch.testing.assert_close(given.held_out[:4, 0], torch.full((4,), 0.5))


def test_a_weighted_sum_holds_nothing() -> None:
    objective = build(mode="weighted_sum", weights={"a": 0.0, "b": 3.0})
    assert objective.num_stages == 1
    assert objective.constrained(0) == []
    torch.testing.assert_close(objective.weigh(LOSSES), torch.tensor([0.0, 0.75, 0.25]))


def test_a_constraint_without_a_value_is_refused() -> None:
    valid = batches(1.0, 2.0, 4.0)
    valid[:, 0] = torch.nan
    with pytest.raises(ValueError, match="holds 'a', whose loss is undefined on every batch"):
        build().begin_stage(1, valid, None)


def test_means_and_errors_leave_undefined_values_out() -> None:
    nan = float("nan")
    mean, error = mean_and_error(torch.tensor([[1.0, nan], [3.0, nan], [nan, 5.0]]))
    torch.testing.assert_close(mean, torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(error, torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, "objective.mode is 'best'"),
        ({"weights": {"d": 1.0}}, "objective.weights names 'd'; objective.priority has a, b, c"),
        ({"weights": {"a": -1.0}}, "weights must not be negative"),
        ({"lower_weight": -0.1}, "objective.lower_weight is -0.1; it must not be negative"),
        ({"references": {"a": 1.0}}, "with mode=simultaneous give one for each of a, b"),
        ({"stage_epochs": [1, 2]}, "mode=stepwise with 3 tasks has 3 stages"),
        ({"monitors": {"x": "auc"}}, "objective.monitors names 'x'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_bad_nested_options_are_named() -> None:
    with pytest.raises(ValueError, match="set stream to valid"):
        ConstraintOptions(stream="train", metrics={"a": "auc"})
    with pytest.raises(ValueError, match="every_steps is 0"):
        ConstraintOptions(every_steps=0)
    with pytest.raises(ValueError, match="relative is -1"):
        SlackOptions(relative=-1)
