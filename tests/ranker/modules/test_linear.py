import copy

import pytest
import torch
from torch import Tensor, nn

from ranker.modules.linear import Linear
from ranker.modules.mlp import MLP
from ranker_kernels import linear as kernel


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code on any processor."""
    monkeypatch.setattr(kernel, "is_faster_here", lambda: True)


def build(kind: type[nn.Linear]) -> nn.Linear:
    torch.manual_seed(3)
    return kind(80, 200)


def draw() -> Tensor:
    return torch.randn(300, 80, generator=torch.Generator().manual_seed(0))


def test_it_begins_and_is_saved_like_pytorchs() -> None:
    ours, theirs = build(Linear), build(nn.Linear)
    state = ours.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(state[name], value)
    theirs.load_state_dict(state)


def test_it_does_what_pytorchs_does() -> None:
    ours, theirs, inputs = build(Linear), build(nn.Linear), draw()
    output = ours(inputs)
    assert type(output.grad_fn).__name__ == "_LinearBackward"
    torch.testing.assert_close(output, theirs(inputs), rtol=1e-5, atol=1e-6)
    output.square().mean().backward()
    theirs(inputs).square().mean().backward()
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_an_exported_program_has_pytorchs_op() -> None:
    mlp = MLP(input_dim=80, hidden_units=[200, 80], activation="relu", dropout=0.0)
    inputs = draw()
    program = torch.export.export(mlp, (inputs,))
    assert [node.target for node in program.graph.nodes].count(torch.ops.aten.linear.default) == 2
    torch.testing.assert_close(program.module()(inputs), mlp(inputs), rtol=1e-5, atol=1e-6)


def test_it_can_be_traced_and_copied() -> None:
    layer, inputs = build(Linear), draw()
    expected = layer(inputs)
    traced = torch.fx.symbolic_trace(layer)
    assert torch.nn.functional.linear in {node.target for node in traced.graph.nodes}
    torch.testing.assert_close(traced(inputs), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(copy.deepcopy(layer)(inputs), expected)
