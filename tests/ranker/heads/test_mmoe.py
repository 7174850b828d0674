from typing import Any

import pytest
import torch

from ranker.heads.mmoe import MMoE
from ranker.modules.task_towers import TowerOptions
from ranker.slots import FeatureLayout, HeadInputs

LAYOUT = FeatureLayout(names=("user_id", "item_id"), widths=(3, 3))


def build(num_experts: int) -> Any:
    torch.manual_seed(0)
    return MMoE(
        input_dim=6,
        tasks=("ctr", "like"),
        layout=LAYOUT,
        num_experts=num_experts,
        expert_units=[4],
        towers=TowerOptions(predict=["ctr", "like"], hidden_units=[]),
    )


def test_each_task_mixes_all_experts_with_its_own_gate() -> None:
    head, features = build(3), torch.randn(9, 6)
    for tower in head.towers.towers:
        torch.nn.init.normal_(tower.logit.weight)
    logits = head(HeadInputs(features=features, embedded=features))
    for index, task in enumerate(("ctr", "like")):
        weights = head.gates[index].weight.weight
        for row in range(9):
            shares = torch.softmax(weights @ features[row], 0)
            outputs = [expert(features[row : row + 1])[0] for expert in head.experts.experts]
            mixed = sum(share * output for share, output in zip(shares, outputs, strict=True))
            expected = mixed @ head.towers.towers[index].logit.weight[0]
            torch.testing.assert_close(logits[task][row], expected)


def test_there_must_be_experts() -> None:
    with pytest.raises(ValueError, match=r"head\.num_experts is 0; it must be at least 1"):
        build(0)
