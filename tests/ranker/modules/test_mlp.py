import pytest
import torch

from ranker.modules.mlp import MLP, build_activation, linear_logit


def test_mlp_is_linear_then_activation() -> None:
    mlp = MLP(input_dim=4, hidden_units=[5, 3], activation="relu", dropout=0.0)
    inputs = torch.randn(7, 4)
    expected = inputs
    for linear in (m for m in mlp.layers if isinstance(m, torch.nn.Linear)):
        expected = torch.relu(expected @ linear.weight.T + linear.bias)
    torch.testing.assert_close(mlp(inputs), expected)
    assert mlp.output_dim == 3


def test_a_fresh_tower_predicts_one_half() -> None:
    assert linear_logit(6)(torch.randn(4, 6)).abs().max() == 0


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match="activation is 'gelu'; must be one of relu"):
        build_activation("gelu", 3)  # type: ignore[arg-type]
