import pytest
import torch
from torch.nn.functional import normalize

from ranker.sequence.sdim import SDIM
from ranker.slots import SequenceInputs
from ranker_kernels.signature_sums import signatures


def make_inputs(windows: list[list[int]]) -> SequenceInputs:
    generator = torch.Generator().manual_seed(1)
    count = len(windows)
    return SequenceInputs(
        query=torch.randn(count, 6, generator=generator),
        behaviors=torch.randn(40, 6, generator=generator, requires_grad=True),
        cross=torch.zeros(40, 0),
        windows=torch.tensor(windows),
        user_of=torch.arange(count),
        behavior_time=torch.arange(40),
        time=torch.full((count,), 99),
    )


def test_interest_is_the_mean_of_scaled_sums_of_colliding_behaviors() -> None:
    inputs = make_inputs([[0, 25], [0, 25], [10, 40], [40, 40]])
    encoder = SDIM(query_dim=6, cross_dim=0, num_hashes=8, bits_per_signature=2)
    expected = torch.zeros(4, 6)
    for c, (begin, end) in enumerate(inputs.windows.tolist()):
        for s in range(4):
            planes = encoder.directions[:, 2 * s : 2 * s + 2]
            target = inputs.query[c] @ planes >= 0
            seen = inputs.behaviors[begin:end]
            collides = ((seen @ planes >= 0) == target).all(dim=1)
            expected[c] += normalize(seen[collides].sum(0), dim=0) / 4
    actual = encoder(inputs)
    torch.testing.assert_close(actual, expected)
    assert actual[3].abs().max() == 0
    grads = [torch.autograd.grad(v.cos().sum(), inputs.behaviors)[0] for v in (actual, expected)]
    torch.testing.assert_close(*grads)


def test_collisions_follow_the_angle() -> None:
    encoder = SDIM(query_dim=2, cross_dim=0, num_hashes=9000, bits_per_signature=3)
    angle = torch.tensor(0.7)
    pair = torch.stack([torch.tensor([1.0, 0.0]), torch.stack([angle.cos(), angle.sin()])])
    first, second = signatures(pair, encoder.directions, 3)
    expected = (1 - 0.7 / torch.pi) ** 3
    assert (first == second).float().mean().item() == pytest.approx(expected, abs=0.03)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"bits_per_signature \(5\) must divide"):
        SDIM(query_dim=6, cross_dim=0, num_hashes=48, bits_per_signature=5)
    with pytest.raises(ValueError, match=r"bits_per_signature is 9 .* must be 1 to 8"):
        SDIM(query_dim=6, cross_dim=0, num_hashes=48, bits_per_signature=9)
