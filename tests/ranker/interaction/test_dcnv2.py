from typing import Any

import numpy as np
import pytest
import torch

from ranker.interaction.dcnv2 import DCNv2
from ranker.slots import FeatureLayout

LAYOUT = FeatureLayout(names=("a", "b"), widths=(4, 3))
FORMS: list[dict[str, Any]] = [
    {"form": "full"},
    {"form": "low_rank", "rank": 2},
    {"form": "mixture", "rank": 2, "num_experts": 3},
]


def build(**options: Any) -> DCNv2:
    torch.manual_seed(0)
    model = DCNv2(layout=LAYOUT, num_layers=2, **options).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def cross(form: str, state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """f(x) for one row."""
    if form == "full":
        return state["weight"] @ x + state["bias"]
    if form == "low_rank":
        return state["1.weight"] @ (state["0.weight"] @ x) + state["1.bias"]
    scores = np.exp(state["gate.weight"] @ x)
    total = np.zeros_like(x)
    for share, down, core, up in zip(
        scores / scores.sum(), state["down"], state["core"], state["up"], strict=True
    ):
        total += share * (up @ np.tanh(core @ np.tanh(down @ x)) + state["bias"])
    return total


@pytest.mark.parametrize("options", FORMS, ids=lambda options: options["form"])
def test_the_equations(options: dict[str, Any]) -> None:
    model, embedded = build(**options), torch.randn(6, 7, dtype=torch.float64)
    states = [
        {name: value.detach().numpy() for name, value in layer.named_parameters()}
        for layer in model.layers
    ]
    for row, found in zip(embedded.numpy(), model(embedded).detach().numpy(), strict=True):
        x = row
        for state in states:
            x = row * cross(options["form"], state, x) + x
        np.testing.assert_allclose(found, x, rtol=1e-10)


def test_the_input_can_be_kept() -> None:
    model, embedded = build(keep_input=True), torch.randn(6, 7, dtype=torch.float64)
    found = model(embedded)
    assert found.shape == (6, model.output_dim)
    torch.testing.assert_close(found[:, 7:], embedded)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "low_rank"}, r"interaction\.rank is None; the form low_rank needs at least 1"),
        ({"form": "mixture", "rank": 2}, r"interaction\.num_experts is None; the form mixture"),
        ({"form": "full", "rank": 2}, r"interaction\.rank is 2, but the form full has none"),
        ({"form": "cube"}, r"interaction\.form is 'cube'; must be one of full, low_rank, mixture"),
        ({"num_layers": 0}, r"interaction\.num_layers is 0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DCNv2(layout=LAYOUT, **{"num_layers": 1, **options})
