"""The same weights in FuxiCTR's layers and in ours: recorded by record_fuxictr.py beside this."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ranker.heads.mmoe import MMoE
from ranker.interaction.autoint import AutoInt
from ranker.interaction.dcnv2 import DCNv2
from ranker.modules.task_towers import TowerOptions
from ranker.sequence.din import DIN
from ranker.slots import FeatureLayout, HeadInputs, SequenceInputs

LAYOUT = FeatureLayout(names=("a", "b", "c"), widths=(2, 2, 2))
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Weights]:
    with np.load(Path(__file__).with_name("fuxictr.npz")) as arrays:
        cases: dict[str, Weights] = {}
        for key in arrays:
            case, _, name = key.partition("/")
            cases.setdefault(case, {})[name] = torch.from_numpy(arrays[key])
    return cases


def fill(parameter: Tensor, value: Tensor) -> None:
    assert parameter.shape == value.shape
    with torch.no_grad():
        parameter.copy_(value)


def build_din(weights: Weights, activation: str, normalize: str) -> DIN:
    encoder = DIN(
        query_dim=4,
        cross_dim=0,
        hidden_units=[6, 3],
        activation=activation,  # type: ignore[arg-type]
        normalize=normalize,  # type: ignore[arg-type]
    ).eval()
    for layer, index in enumerate((0, 2, 4)):
        fill(encoder.weights[layer], weights[f"attention_layer.mlp.{index}.weight"])
        fill(encoder.biases[layer], weights[f"attention_layer.mlp.{index}.bias"])
    if activation == "dice":
        for layer, index in enumerate((1, 3)):
            at = f"attention_layer.mlp.{index}"
            fill(encoder.alphas[layer], weights[f"{at}.alpha"])
            moments = [weights[f"{at}.bn.running_mean"], weights[f"{at}.bn.running_var"]]
            fill(encoder.get_buffer(f"moments_{layer}"), torch.stack(moments))
    return encoder


def ranges(weights: Weights) -> SequenceInputs:
    """Padded histories [C, 5, D] as ranges without padding."""
    lengths = weights["mask"].sum(1).long()
    ends = lengths.cumsum(0)
    behaviors = weights["history"][weights["mask"].bool()]
    count = len(lengths)
    return SequenceInputs(
        query=weights["target"],
        behaviors=behaviors,
        cross=torch.zeros(len(behaviors), 0),
        windows=torch.stack([ends - lengths, ends], dim=1),
        user_of=torch.arange(count),
        behavior_time=torch.arange(len(behaviors)),
        time=torch.full((count,), 100),
    )


@pytest.mark.parametrize("activation", ["dice", "sigmoid"])
def test_din(recorded: dict[str, Weights], activation: str) -> None:
    weights = recorded[f"din_{activation}"]
    found = build_din(weights, activation, "none")(ranges(weights))
    torch.testing.assert_close(found, weights["output"], rtol=1e-5, atol=1e-5)


def test_din_with_softmax(recorded: dict[str, Weights]) -> None:
    weights = recorded["din_softmax"]
    encoder = build_din(weights, "sigmoid", "softmax")
    # the authors divide the scores by sqrt(D) before the softmax, FuxiCTR does not
    fill(encoder.weights[2], encoder.weights[2].detach() * 2)
    fill(encoder.biases[2], encoder.biases[2].detach() * 2)
    found = encoder(ranges(weights))
    torch.testing.assert_close(found[:3], weights["output"][:3], rtol=1e-5, atol=1e-5)
    # without a history FuxiCTR averages the padding; ours is zeros
    assert found[3].abs().max() == 0
    torch.testing.assert_close(weights["output"][3], weights["history"][3].mean(0))


def test_dcnv2(recorded: dict[str, Weights]) -> None:
    weights = recorded["dcnv2"]
    cross = DCNv2(layout=LAYOUT, num_layers=2)
    for index, layer in enumerate(cross.layers):
        fill(layer.get_parameter("weight"), weights[f"cross_layers.{index}.weight"])
        fill(layer.get_parameter("bias"), weights[f"cross_layers.{index}.bias"])
    torch.testing.assert_close(cross(weights["inputs"]), weights["output"], rtol=1e-5, atol=1e-5)


def test_dcnv2_mixture(recorded: dict[str, Weights]) -> None:
    weights = recorded["dcnv2_mixture"]
    cross = DCNv2(layout=LAYOUT, num_layers=2, form="mixture", rank=3, num_experts=2)
    # FuxiCTR's layers share one gate; ours have their own
    gate = torch.cat([weights[f"gating.{expert}.weight"] for expert in range(2)])
    for index, layer in enumerate(cross.layers):
        fill(layer.get_parameter("gate.weight"), gate)
        fill(layer.get_parameter("down"), weights[f"V_list.{index}"].transpose(1, 2))
        fill(layer.get_parameter("core"), weights[f"C_list.{index}"])
        fill(layer.get_parameter("up"), weights[f"U_list.{index}"])
        fill(layer.get_parameter("bias"), weights[f"bias.{index}"][:, 0])
    torch.testing.assert_close(cross(weights["inputs"]), weights["output"], rtol=1e-5, atol=1e-5)
    # FuxiCTR squeezes away a batch of one row
    assert weights["one"].shape == (6,)
    assert cross(weights["inputs"][:1]).shape == (1, 6)


def test_autoint(recorded: dict[str, Weights]) -> None:
    weights = recorded["autoint"]
    layout = FeatureLayout(names=("a", "b", "c"), widths=(4, 4, 4))
    attention = AutoInt(layout=layout, token_dim=4, num_layers=2, num_heads=2, head_dim=3)
    # between layers of equal width FuxiCTR adds the input itself, the paper projects it
    residuals = [weights["0.W_res.weight"], torch.eye(6)]
    for index, layer in enumerate(attention.layers):
        parts = [weights[f"{index}.W_{name}.weight"] for name in "qkv"]
        fill(layer.get_parameter("projections.weight"), torch.cat([*parts, residuals[index]]))
    found = attention(weights["tokens"].flatten(1))
    torch.testing.assert_close(found, weights["output"].flatten(1), rtol=1e-5, atol=1e-5)


def test_mmoe(recorded: dict[str, Weights]) -> None:
    weights = recorded["mmoe"]
    head = MMoE(
        input_dim=6,
        tasks=("a", "b"),
        layout=LAYOUT,
        num_experts=3,
        expert_units=[4],
        towers=TowerOptions(predict=["a", "b"], hidden_units=[]),
    )
    for index, expert in enumerate(head.experts.experts):
        for name in ("weight", "bias"):
            value = weights[f"experts.{index}.mlp.0.{name}"]
            fill(expert.get_parameter(f"layers.0.{name}"), value)
    for index in range(2):
        fill(
            head.gates[index].get_parameter("weight.weight"), weights[f"gate.{index}.mlp.0.weight"]
        )
    for column in range(4):
        # a tower that hands on one column of what the gate mixed
        for tower in head.towers.towers:
            fill(tower.get_parameter("logit.weight"), torch.eye(4)[column : column + 1])
        found = head(HeadInputs(features=weights["features"], embedded=weights["features"]))
        for task, expected in zip("ab", weights["output"], strict=True):
            torch.testing.assert_close(found[task], expected[:, column], rtol=1e-5, atol=1e-5)
