import pytest
import torch

from ranker.optimizers.look_ahead import MetaOptions, look_ahead


def test_the_gradient_is_that_of_first_order_meta_learning() -> None:
    torch.manual_seed(0)
    theta, phi = (torch.randn(3, requires_grad=True) for _ in range(2))
    before = theta.detach().clone()

    def loss(theta: torch.Tensor, phi: torch.Tensor, power: int) -> torch.Tensor:
        return ((theta * phi).sum() - 1).pow(power) + theta.square().sum()

    loss(theta, phi, 2).backward()  # type: ignore[no-untyped-call]
    (inner,) = torch.autograd.grad(loss(theta, phi, 2), theta)
    with look_ahead([theta], rate=0.1):
        theta.grad = phi.grad = None
        loss(theta, phi, 4).backward()  # type: ignore[no-untyped-call]
    moved = (before - 0.1 * inner).requires_grad_()
    expected = torch.autograd.grad(loss(moved, phi, 4), [moved, phi])
    torch.testing.assert_close([theta.grad, phi.grad], list(expected))
    assert torch.equal(theta.detach(), before)


def test_weights_come_back_after_an_error() -> None:
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.ones(2)
    untouched = torch.ones(2, requires_grad=True)

    def fail() -> None:
        with look_ahead([weight, untouched], rate=0.5):
            assert weight.tolist() == [0.5, 0.5]
            assert untouched.tolist() == [1, 1]
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert weight.tolist() == [1, 1]


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"trainer\.meta\.encoders is empty"):
        MetaOptions(encoders=[], rate=0.1)
    with pytest.raises(ValueError, match=r"trainer\.meta\.rate is 0"):
        MetaOptions(encoders=["din"], rate=0)
