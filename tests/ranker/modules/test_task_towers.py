from typing import Any

import pytest
import torch

from ranker.modules.ppnet import PPNetOptions
from ranker.modules.product_logit import product_logit
from ranker.modules.task_towers import TaskTowers, TowerOptions
from ranker.slots import FeatureLayout, HeadInputs

LAYOUT = FeatureLayout(names=("user_id", "item_id"), widths=(3, 2))
TASKS = ("ctr", "cvr", "ctcvr")
OPTIONS = TowerOptions(
    predict=["ctr", "cvr"], hidden_units=[6, 4], products={"ctcvr": ["ctr", "cvr"]}
)


def build(ppnet: PPNetOptions | None = None, options: TowerOptions = OPTIONS) -> Any:
    torch.manual_seed(0)
    towers = TaskTowers(
        input_dim=5, tower_dim=5, tasks=TASKS, layout=LAYOUT, options=options, ppnet=ppnet
    )
    for name, parameter in towers.named_parameters():
        if "logit" in name:
            torch.nn.init.normal_(parameter)
    return towers


def inputs(rows: int = 8) -> HeadInputs:
    torch.manual_seed(2)
    return HeadInputs(
        features=torch.randn(rows, 5, requires_grad=True),
        embedded=torch.randn(rows, 5, requires_grad=True),
    )


def run(towers: Any, batch: HeadInputs) -> dict[str, torch.Tensor]:
    logits: dict[str, torch.Tensor] = towers([batch.features] * 2, batch)
    return logits


def test_towers_and_products() -> None:
    batch, towers = inputs(), build()
    logits = run(towers, batch)
    assert list(logits) == ["ctr", "cvr", "ctcvr"]
    state = towers.state_dict()
    for index, task in enumerate(("ctr", "cvr")):
        hidden = batch.features
        for layer in range(2):
            prefix = f"towers.{index}.layers.{layer}"
            hidden = torch.relu(hidden @ state[f"{prefix}.weight"].T + state[f"{prefix}.bias"])
        weight, bias = (state[f"towers.{index}.logit.{part}"] for part in ("weight", "bias"))
        torch.testing.assert_close(logits[task], hidden @ weight[0] + bias[0])
    torch.testing.assert_close(logits["ctcvr"], product_logit([logits["ctr"], logits["cvr"]]))


@pytest.mark.parametrize("first", [False, True])
def test_new_ppnet_gates_change_nothing(first: bool) -> None:
    options = PPNetOptions(prior=["user_id"], hidden_dim=4, gate_first_input=first)
    gated, plain = build(options), build()
    plain.load_state_dict(
        {name: value for name, value in gated.state_dict().items() if "ppnet" not in name}
    )
    found, expected = run(gated, inputs()), run(plain, inputs())
    for task in TASKS:
        torch.testing.assert_close(found[task], expected[task])


@pytest.mark.parametrize("first", [False, True])
def test_ppnet_gates_each_layer_of_each_task(first: bool) -> None:
    options = PPNetOptions(prior=["item_id"], hidden_dim=4, gate_first_input=first)
    towers, batch = build(options), inputs()
    gate_input = torch.cat([batch.embedded[:, 3:5], batch.features], dim=1)
    for gate in towers.ppnet.gates:
        torch.nn.init.normal_(gate.output.weight)
    gates = [2 * gate(gate_input).logits.sigmoid() for gate in towers.ppnet.gates]
    tower = towers.towers[1]
    hidden = batch.features * gates.pop(0)[:, 5:] if first else batch.features
    for layer, gate, width in zip(tower.layers, gates, (6, 4), strict=True):
        hidden = torch.relu(layer(hidden)) * gate[:, width:]
    torch.testing.assert_close(run(towers, batch)["cvr"], tower.logit(hidden).squeeze(-1))


def test_the_gates_reshape_the_prior_but_not_the_features() -> None:
    options = PPNetOptions(prior=["user_id"], hidden_dim=4)
    towers, batch = build(options), inputs()
    for gate in towers.ppnet.gates:
        torch.nn.init.normal_(gate.output.weight)
    gates = towers.ppnet(batch)
    total: Any = sum(gate.logits.sum() for tower in gates for gate in tower if gate is not None)
    total.backward()
    assert batch.features.grad is None
    assert batch.embedded.grad is not None
    assert batch.embedded.grad[:, :3].abs().max() > 0
    assert batch.embedded.grad[:, 3:].abs().max() == 0


def options(**changes: object) -> TowerOptions:
    values = {"predict": ["ctr"], "hidden_units": [4], **changes}
    return TowerOptions(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (options(predict=[]), r"head\.towers\.predict is empty; the data set has ctr, cvr"),
        (options(predict=["crt"]), r"predict names the task 'crt'; the data set has"),
        (options(products={"x": ["ctr", "ctr"]}), r"products names the task 'x'"),
        (options(products={"ctcvr": ["ctr", "cvr"]}), r"products\.ctcvr .* two or more of ctr$"),
        (options(products={"ctcvr": ["ctr"]}), r"products\.ctcvr is \['ctr'\]"),
        (options(auxiliary=["cvr"]), r"auxiliary names 'cvr', which is a task"),
        (options(predict=["ctr", "ctr"]), r"head\.towers names 'ctr' twice"),
    ],
)
def test_wrong_names_are_told(wrong: TowerOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(options=wrong)
