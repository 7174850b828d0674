from typing import Any

import numpy as np
import pytest
import torch

from ranker.heads.ple import PLE
from ranker.modules.task_towers import TowerOptions
from ranker.slots import FeatureLayout, HeadInputs

LAYOUT = FeatureLayout(names=("user_id",), widths=(1,))


def build(input_dim: int = 1, **changes: Any) -> Any:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "num_levels": 2,
        "num_task_experts": 1,
        "num_shared_experts": 1,
        "expert_units": [1],
        **changes,
    }
    return PLE(
        input_dim=input_dim,
        tasks=("ctr", "like"),
        layout=LAYOUT,
        towers=TowerOptions(predict=["ctr", "like"], hidden_units=[]),
        **values,
    )


def run(head: Any, features: torch.Tensor) -> Any:
    return head(HeadInputs(features=features, embedded=features))


def set_experts(head: Any, values: list[tuple[float, float, float]]) -> None:
    """Makes each level's experts x -> w x, as (ctr's, like's, the shared one's) w."""
    for level, (ctr, like, shared) in zip(head.levels, values, strict=True):
        experts = (*level.task_experts, level.shared_experts)
        for expert, value in zip(experts, (ctr, like, shared), strict=True):
            expert.experts[0].layers[0].weight.data.fill_(value)
    for tower in head.towers.towers:
        tower.logit.weight.data.fill_(1.0)


def test_two_levels_by_hand() -> None:
    """With gates at zero every mixture is a plain mean.

    x = 1. Level 1: experts ctr 2, like 4, shared 9. ctr (2+9)/2 = 5.5, like (4+9)/2 = 6.5, shared
    sees all three: (2+4+9)/3 = 5. Level 2: experts ctr 1 (5.5), like 2 (13), shared 3 (15).
    ctr (5.5+15)/2 = 10.25, like (13+15)/2 = 14. A shared gate over shared experts only would give
    9 on level 1, and 16.25 and 20 at the end.
    """
    head = build()
    set_experts(head, [(2.0, 4.0, 9.0), (1.0, 2.0, 3.0)])
    for parameter_name, parameter in head.named_parameters():
        if "gate" in parameter_name:
            parameter.data.zero_()
    logits = run(head, torch.ones(1, 1))
    assert logits["ctr"].item() == pytest.approx(10.25)
    assert logits["like"].item() == pytest.approx(14.0)


def test_gates_choose_by_the_level_below() -> None:
    head = build()
    set_experts(head, [(2.0, 4.0, 9.0), (1.0, 2.0, 3.0)])
    gates = {
        name: parameter.detach().numpy()[:, 0]
        for name, parameter in head.named_parameters()
        if "gate" in name
    }

    def mix(gate: np.ndarray, x: float, outputs: list[float]) -> float:
        scores = np.exp(gate * x)
        return float(scores @ outputs / scores.sum())

    x = 0.7
    ctr = mix(gates["levels.0.task_gates.0.weight.weight"], x, [2 * x, 9 * x])
    like = mix(gates["levels.0.task_gates.1.weight.weight"], x, [4 * x, 9 * x])
    shared = mix(gates["levels.0.shared_gate.weight.weight"], x, [2 * x, 4 * x, 9 * x])
    top = mix(gates["levels.1.task_gates.1.weight.weight"], like, [2 * like, 3 * shared])
    logits = run(head, torch.full((1, 1), x))
    assert logits["like"].item() == pytest.approx(top, rel=1e-5)
    assert logits["ctr"].item() == pytest.approx(
        mix(gates["levels.1.task_gates.0.weight.weight"], ctr, [ctr, 3 * shared]), rel=1e-5
    )


def test_a_task_never_sees_the_other_tasks_experts_on_one_level() -> None:
    head = build(input_dim=5, num_levels=1, num_task_experts=2, expert_units=[4])
    for tower in head.towers.towers:
        torch.nn.init.normal_(tower.logit.weight)
    run(head, torch.randn(8, 5))["ctr"].sum().backward()
    level = head.levels[0]
    assert all(parameter.grad is None for parameter in level.task_experts[1].parameters())
    assert all(parameter.grad is not None for parameter in level.shared_experts.parameters())


def test_every_parameter_is_used() -> None:
    head = build(input_dim=5, num_levels=3, num_task_experts=2, expert_units=[6, 4])
    for tower in head.towers.towers:
        torch.nn.init.normal_(tower.logit.weight)
    logits = run(head, torch.randn(8, 5))
    (logits["ctr"] + logits["like"]).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_levels": 0}, r"head\.num_levels is 0"),
        ({"num_task_experts": 0}, r"head\.num_task_experts is 0"),
        ({"num_shared_experts": 0}, r"head\.num_shared_experts is 0"),
        ({"expert_units": []}, r"head\.expert_units is empty"),
    ],
)
def test_bad_sizes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)
