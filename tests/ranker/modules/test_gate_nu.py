import numpy as np
import pytest
import torch

from ranker.modules.gate_nu import GateNU


def build(gamma: float = 2.0) -> GateNU:
    torch.manual_seed(0)
    return GateNU(input_dim=5, hidden_dim=7, output_dim=3, gamma=gamma, option="gate")


@pytest.mark.parametrize("gamma", [1.5, 2.0, 3.0])
def test_a_new_gate_is_the_identity(gamma: float) -> None:
    hidden = torch.randn(11, 3)
    torch.testing.assert_close(build(gamma)(torch.randn(11, 5)).scale(hidden), hidden)


def test_the_equation() -> None:
    gate = build().double()
    torch.nn.init.normal_(gate.output.weight)
    inputs = torch.randn(11, 5, dtype=torch.float64)
    w, b = gate.hidden.weight.detach().numpy().T, gate.hidden.bias.detach().numpy()
    w2, b2 = gate.output.weight.detach().numpy().T, gate.output.bias.detach().numpy()
    expected = 2 / (1 + np.exp(-(np.maximum(inputs.numpy() @ w + b, 0) @ w2 + b2)))
    gates = gate(inputs).scale(torch.ones(11, 3, dtype=torch.float64))
    np.testing.assert_allclose(gates.detach().numpy(), expected, rtol=1e-12)


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match=r"gate\.gamma is 1\.0; it must be above 1"):
        build(1.0)
    with pytest.raises(ValueError, match=r"x\.hidden_dim is 0"):
        GateNU(input_dim=2, hidden_dim=0, output_dim=2, gamma=2.0, option="x")
