import torch

from ranker.modules.feature_gradients import feature_gramian


def test_the_gramian_is_that_of_the_gradients_and_enters_nothing_below() -> None:
    torch.manual_seed(0)
    below = torch.randn(5, 3, requires_grad=True)
    features = below * 2
    losses = torch.stack([features.square().sum(), features[:, 0].sum(), features.exp().mean()])
    found = feature_gramian(losses, features)
    jacobian = torch.stack(
        [2 * features, torch.eye(3)[0].expand(5, 3), features.exp() / 15]
    ).flatten(1)
    torch.testing.assert_close(found, (jacobian @ jacobian.T).detach())
    assert below.grad is None
    # the graph is still there for the step's own backward
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert below.grad is not None


def test_a_loss_that_does_not_depend_on_the_features_has_no_gradient() -> None:
    features = torch.ones(2, 2, requires_grad=True)
    other = torch.ones(1, requires_grad=True)
    found = feature_gramian(torch.stack([features.sum(), other.sum()]), features)
    assert found.tolist() == [[4.0, 0.0], [0.0, 0.0]]
