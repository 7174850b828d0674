import pytest
import torch

from ranker.gates.epnet import EPNet
from ranker.slots import FeatureLayout

LAYOUT = FeatureLayout(names=("user_id", "domain", "price"), widths=(4, 3, 1))


def build() -> EPNet:
    torch.manual_seed(0)
    gate = EPNet(layout=LAYOUT, prior=["domain"], hidden_dim=6)
    torch.nn.init.normal_(gate.gate.output.weight)
    return gate


def test_a_new_gate_leaves_the_embedding_as_it_is() -> None:
    embedded = torch.randn(9, LAYOUT.dim)
    new = EPNet(layout=LAYOUT, prior=["domain"], hidden_dim=6)
    torch.testing.assert_close(new(embedded), embedded)


def test_the_gate_sees_the_prior_and_the_embedding() -> None:
    gate, embedded = build(), torch.randn(9, LAYOUT.dim)
    delta = 2 * gate.gate(torch.cat([embedded[:, 4:7], embedded], dim=1)).logits.sigmoid()
    torch.testing.assert_close(gate(embedded), delta * embedded)


def test_only_the_prior_gets_gradient_through_the_gate() -> None:
    gate = build()
    embedded = torch.randn(9, LAYOUT.dim, requires_grad=True)
    gate(embedded).sum().backward()
    logits = gate.gate(torch.cat([embedded[:, 4:7], embedded], dim=1)).logits
    delta = 2 * logits.sigmoid().detach()
    assert embedded.grad is not None
    # outside the prior the gradient is the gate alone, as if the gate were a constant
    others = [0, 1, 2, 3, 7]
    torch.testing.assert_close(embedded.grad[:, others], delta[:, others])
    assert (embedded.grad[:, 4:7] - delta[:, 4:7]).abs().min() > 1e-6


def test_an_unknown_prior_is_named() -> None:
    with pytest.raises(ValueError, match=r"gate\.prior names 'domian', .* did you mean 'domain'"):
        EPNet(layout=LAYOUT, prior=["domian"], hidden_dim=6)
    with pytest.raises(ValueError, match=r"gate\.prior is empty; name at least one of user_id"):
        EPNet(layout=LAYOUT, prior=[], hidden_dim=6)
