import torch

from ranker.modules.experts import ExpertGate, Experts


def test_a_gate_mixes_experts_by_softmax() -> None:
    torch.manual_seed(0)
    experts = Experts(
        num_experts=3, input_dim=4, hidden_units=[5, 2], activation="relu", dropout=0.0
    )
    gate = ExpertGate(input_dim=4, num_experts=3)
    inputs = torch.randn(7, 4)
    outputs = experts(inputs)
    assert outputs.shape == (7, 3, 2)
    torch.testing.assert_close(outputs[:, 1], experts.experts[1](inputs))
    scores = (inputs @ gate.weight.weight.T).exp()
    shares = scores / scores.sum(1, keepdim=True)
    expected = sum(shares[:, e : e + 1] * outputs[:, e] for e in range(3))
    torch.testing.assert_close(gate(inputs, outputs), expected)
