"""Dice's statistics of a batch: computed pass by pass, and nothing of a pair kept."""

import itertools

import pytest
import torch
from torch import Tensor

from ranker_kernels.din_attention import ActivationUnit, Moments, din_attention
from ranker_kernels.din_attention import batch_moments as module
from ranker_kernels.din_attention.batch_moments import pair_moments
from ranker_kernels.din_attention.reference import din_attention_reference
from ranker_kernels.native import SWITCH

DIM = 8


def draw_unit(hidden: tuple[int, ...], dtype: torch.dtype) -> ActivationUnit:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (values * shape[-1] ** -0.5).to(dtype).requires_grad_()

    widths = [4 * DIM, *hidden, 1]
    return ActivationUnit(
        activation="dice",
        weights=tuple(draw(n, m) for m, n in itertools.pairwise(widths)),
        biases=tuple(draw(n) for n in widths[1:]),
        alphas=tuple(draw(n) for n in hidden),
    )


def draw_inputs(lengths: list[int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    ends = torch.tensor(lengths).cumsum(0)
    windows = torch.stack([ends - torch.tensor(lengths), ends], dim=1)
    shapes = (len(lengths), DIM), (int(ends[-1]), DIM)
    query, behaviors = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return query.requires_grad_(), behaviors.requires_grad_(), windows


def plain_moments(
    query: Tensor, behaviors: Tensor, windows: Tensor, unit: ActivationUnit, given: list[Moments]
) -> Moments:
    """The formula, with every pair's pre-activations in memory."""
    candidate = torch.repeat_interleave(windows[:, 1] - windows[:, 0])
    behavior = torch.cat([torch.arange(*window) for window in windows.tolist()])
    q, k = query[candidate], behaviors[behavior]
    h = torch.cat([q, k, q - k, q * k], dim=1)
    for weight, bias, alpha, moments in zip(unit.weights, unit.biases, unit.alphas, given):  # noqa: B905
        z = h @ weight.T + bias
        gate = torch.sigmoid((z - moments.mean) / torch.sqrt(moments.variance + 1e-8))
        h = gate * z + (1 - gate) * alpha * z
    z = h @ unit.weights[len(given)].T + unit.biases[len(given)]
    return Moments(z.mean(0), z.var(0, correction=0))


def draw_given(widths: tuple[int, ...], dtype: torch.dtype) -> list[Moments]:
    return [
        Moments(
            torch.full((width,), 0.2, dtype=dtype).requires_grad_(),
            torch.full((width,), 0.7, dtype=dtype).requires_grad_(),
        )
        for width in widths
    ]


@pytest.mark.parametrize("native", ["0", "1"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_errs_at_most_twice_as_much_as_plain_pytorch(
    depth: int, native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, native)
    hidden = (20, 33, 5)
    lengths = [0, 1, 70, 3, 64, 2, 0, 900]
    upstream = [
        torch.randn(hidden[depth], generator=torch.Generator().manual_seed(i)) for i in (1, 2)
    ]

    def differentiate(compute: object, dtype: torch.dtype) -> list[Tensor]:
        inputs, unit = draw_inputs(lengths, dtype), draw_unit(hidden, dtype)
        given = draw_given(hidden[:depth], dtype)
        assert callable(compute)
        moments = compute(*inputs, unit, given)
        learned = [*inputs[:2], *unit.weights[: depth + 1], *unit.biases[: depth + 1]]
        learned += [*unit.alphas[:depth], *(tensor for pair in given for tensor in pair)]
        gradients = torch.autograd.grad(moments, learned, [g.to(dtype) for g in upstream])
        return [tensor.detach().double() for tensor in (*moments, *gradients)]

    exact = differentiate(plain_moments, torch.float64)
    plain = differentiate(plain_moments, torch.float32)
    for part, (ours, theirs, wanted) in enumerate(
        zip(differentiate(pair_moments, torch.float32), plain, exact, strict=True)
    ):
        size = max(float(wanted.norm()), 1e-3)
        error, allowed = float((ours - wanted).norm()), float((theirs - wanted).norm())
        assert error < max(2 * allowed, 1.5e-6 * size), part
    for ours, wanted in zip(differentiate(pair_moments, torch.float64), exact, strict=True):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("native", ["0", "1"])
def test_a_variance_beside_a_large_mean_keeps_its_digits(
    native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, native)
    query, behaviors, windows = draw_inputs([30, 2000, 1], torch.float32)
    unit = draw_unit((6,), torch.float32)
    with torch.no_grad():
        unit.biases[0].fill_(1e4)
        moments = pair_moments(query, behaviors, windows, unit, [])
        double = unit.to(torch.float64)
        wanted = plain_moments(query.double(), behaviors.double(), windows, double, [])
    # z itself has lost four digits, its deviations are no worse
    torch.testing.assert_close(moments.variance.double(), wanted.variance, rtol=2e-3, atol=0)


def test_the_default_dtype_changes_nothing() -> None:
    unit = draw_unit((12, 7), torch.float32)
    inputs = draw_inputs([3, 0, 40], torch.float32)
    expected = pair_moments(*inputs, unit, [])
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        moments = pair_moments(*inputs, unit, [])
    finally:
        torch.set_default_dtype(before)
    for value, wanted in zip(moments, expected, strict=True):
        assert torch.equal(value, wanted)


def test_opcheck() -> None:
    unit = draw_unit((6, 4), torch.float32)
    inputs = draw_inputs([3, 0, 9], torch.float32)
    given = draw_given((6,), torch.float32)
    parts = [[*unit.weights[:2]], [*unit.biases[:2]], [unit.alphas[0]]]
    torch.library.opcheck(
        module._moments.overload, (*inputs, *parts, [given[0].mean], [given[0].variance])
    )


def test_nothing_of_a_pair_is_kept_for_the_backward() -> None:
    query, behaviors, windows = draw_inputs([100] * 30, torch.float32)
    # every candidate sees everything: 90,000 pairs of 3,000 behaviours
    windows = torch.tensor([[0, 3000]]).repeat(30, 1)
    unit = draw_unit((6, 4), torch.float32)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output, _ = din_attention(query, behaviors, windows, unit, normalize="softmax")
    assert max(kept) == behaviors.numel()
    torch.autograd.backward(output.sum())
    ours = [query.grad, behaviors.grad]
    query.grad = behaviors.grad = None
    expected, _ = din_attention_reference(query, behaviors, windows, unit, normalize="softmax")
    torch.autograd.backward(expected.sum())
    torch.testing.assert_close(ours, [query.grad, behaviors.grad], rtol=1e-3, atol=1e-4)
