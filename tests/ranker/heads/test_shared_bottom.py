from typing import Any

import pytest
import torch

from ranker.heads.shared_bottom import SharedBottom
from ranker.modules.task_towers import TowerOptions
from ranker.slots import FeatureLayout, HeadInputs

LAYOUT = FeatureLayout(names=("user_id", "item_id"), widths=(3, 3))


def build(bottom_units: list[int]) -> Any:
    torch.manual_seed(0)
    return SharedBottom(
        input_dim=6,
        tasks=("ctr", "like"),
        layout=LAYOUT,
        bottom_units=bottom_units,
        towers=TowerOptions(predict=["ctr", "like"], hidden_units=[]),
    )


def test_the_bottom_is_shared() -> None:
    head, features = build([4]), torch.randn(9, 6)
    for tower in head.towers.towers:
        torch.nn.init.normal_(tower.logit.weight)
    logits = head(HeadInputs(features=features, embedded=features))
    linear = head.bottom.layers[0]
    shared = torch.relu(linear(features))
    for task, tower in zip(("ctr", "like"), head.towers.towers, strict=True):
        torch.testing.assert_close(logits[task], shared @ tower.logit.weight[0])


def test_a_bottom_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"head\.bottom_units is empty; use head=independent"):
        build([])
