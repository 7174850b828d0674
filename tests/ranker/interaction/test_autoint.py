from typing import Any

import numpy as np
import pytest
import torch

from ranker.interaction.autoint import AutoInt, Variant
from ranker.slots import FeatureLayout

LAYOUT = FeatureLayout(names=("a", "b", "c"), widths=(4, 4, 1))


def build(variant: Variant = "paper", *, keep_input: bool = False) -> Any:
    torch.manual_seed(0)
    return AutoInt(
        layout=LAYOUT,
        token_dim=4,
        num_layers=2,
        num_heads=2,
        head_dim=3,
        variant=variant,
        keep_input=keep_input,
    ).double()


def attend(tokens: np.ndarray, weight: np.ndarray, *, authors: bool) -> np.ndarray:
    """One layer, head by head and field by field: equations 5 to 8."""
    rows, fields, _ = tokens.shape
    queries, keys, values, residuals = np.split(weight, 4)
    output = np.zeros((rows, fields, 6))
    for row in range(rows):
        project = [tokens[row] @ w.T for w in (queries, keys, values, residuals)]
        q, k, v, r = [np.maximum(x, 0) for x in project] if authors else project
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            for m in range(fields):
                scores = np.array([q[m, part] @ k[n, part] for n in range(fields)])
                shares = np.exp(scores / (np.sqrt(3) if authors else 1))
                output[row, m, part] = (shares / shares.sum()) @ v[:, part]
        output[row] = np.maximum(output[row] + r, 0)
    if authors:
        centered = output - output.mean(-1, keepdims=True)
        output = centered / np.sqrt(centered.var(-1, keepdims=True) + 1e-5)
    return output


@pytest.mark.parametrize("variant", ["paper", "authors"])
def test_the_equations(variant: Variant) -> None:
    interaction, embedded = build(variant), torch.randn(5, 9, dtype=torch.float64)
    tokens = interaction.tokens(embedded).detach().numpy()
    for layer in interaction.layers:
        weight = layer.projections.weight.detach().numpy()
        tokens = attend(tokens, weight, authors=variant == "authors")
    found = interaction(embedded).detach().numpy()
    np.testing.assert_allclose(found, tokens.reshape(5, -1), rtol=1e-9, atol=1e-12)


def test_the_input_can_be_kept() -> None:
    interaction, embedded = build(keep_input=True), torch.randn(5, 9, dtype=torch.float64)
    found = interaction(embedded)
    assert found.shape == (5, interaction.output_dim)
    torch.testing.assert_close(found[:, -9:], embedded)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"interaction\.num_heads is 0"):
        AutoInt(layout=LAYOUT, token_dim=4, num_layers=1, num_heads=0, head_dim=2)
    with pytest.raises(ValueError, match=r"interaction\.variant is 'tf'; must be paper or authors"):
        build("tf")  # type: ignore[arg-type]
