"""The compiled path of `din_attention`: odd sizes, long windows, threads, accuracy."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ranker_kernels.din_attention import (
    Activation,
    ActivationUnit,
    Moments,
    Normalize,
    din_attention,
)
from ranker_kernels.din_attention.compiled import find_library
from ranker_kernels.din_attention.reference import din_attention_reference
from ranker_kernels.native import SWITCH


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    assert find_library(torch.zeros(1, 1)) is not None, "these tests need a C++ compiler"
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw_unit(
    activation: Activation, dim: int, hidden: tuple[int, ...], generator: torch.Generator
) -> ActivationUnit:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    widths = [4 * dim, *hidden, 1]
    return ActivationUnit(
        activation=activation,
        weights=tuple(draw(n, m) * m**-0.5 for m, n in itertools.pairwise(widths)),
        biases=tuple(draw(n) * 0.3 for n in widths[1:]),
        alphas=() if activation == "sigmoid" else tuple(draw(n) * 0.3 for n in hidden),
        moments=tuple(Moments(draw(n) * 0.5, draw(n).square() + 0.5) for n in hidden)
        if activation == "dice"
        else (),
    )


def draw_windows(lengths: list[int], generator: torch.Generator) -> tuple[Tensor, int]:
    """Returns windows in no order, some of which overlap or are equal, and the behaviours."""
    ends = torch.tensor(lengths).cumsum(0)
    windows = torch.stack([ends - torch.tensor(lengths), ends], dim=1)
    overlapping = torch.stack([windows[:, 0] // 2, windows[:, 1]], dim=1)[::3]
    every = torch.cat([windows, windows[::4], overlapping])
    return every[torch.randperm(len(every), generator=generator)], int(ends[-1])


def differentiate(
    attention: object, inputs: tuple[Tensor, Tensor, Tensor, ActivationUnit], normalize: Normalize
) -> list[Tensor]:
    """Returns the output and every gradient, in the precision of the inputs."""
    query, behaviors, windows, unit = inputs
    leaves = [query, behaviors, *unit.weights, *unit.biases, *unit.alphas]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    layers = len(unit.weights)
    unit = ActivationUnit(
        activation=unit.activation,
        weights=tuple(leaves[2 : 2 + layers]),
        biases=tuple(leaves[2 + layers : 2 + 2 * layers]),
        alphas=tuple(leaves[2 + 2 * layers :]),
        moments=unit.moments,
    )
    assert callable(attention)
    output, _ = attention(leaves[0], leaves[1], windows, unit, normalize=normalize)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream.to(output.dtype))]


def relative_errors(actual: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [
        float((value.double() - wanted).norm() / max(float(wanted.norm()), 1e-3))
        for value, wanted in zip(actual, expected, strict=True)
    ]


@pytest.mark.parametrize("normalize", ["none", "softmax"])
@pytest.mark.parametrize("activation", ["sigmoid", "prelu", "dice"])
@pytest.mark.parametrize(
    ("dim", "hidden"),
    [(32, (80, 40)), (1, (1,)), (5, (17, 33)), (20, (36,)), (48, (7, 130, 3)), (64, (64, 32))],
)
def test_errs_at_most_twice_as_much_as_plain_pytorch(
    dim: int,
    hidden: tuple[int, ...],
    activation: Activation,
    normalize: Normalize,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # more than one draw: of one, a gradient of a few numbers is exact, or nearly nothing, by luck
    errors = [
        sum_squares_of_errors(seed, dim, hidden, activation, normalize, monkeypatch)
        for seed in range(11, 21)
    ]
    # softmax does not feel the last bias: its gradient is zero, and what is there is noise
    is_felt = torch.ones(errors[0].shape[1], dtype=torch.bool)
    is_felt[2 + 2 * (len(hidden) + 1)] = normalize == "none"
    compiled, plain, expected = errors[0].sqrt()
    bound = torch.maximum(2 * plain, 1.5e-6 * expected.clamp_min(1e-3))
    assert (compiled < bound)[is_felt].all(), compiled / plain
    compiled, plain, expected = torch.stack(errors).sum(0).sqrt()
    bound = torch.maximum(2 * plain, 1e-6 * expected.clamp_min(1e-3))
    assert (compiled < bound)[is_felt].all(), compiled / plain


def sum_squares_of_errors(
    seed: int,
    dim: int,
    hidden: tuple[int, ...],
    activation: Activation,
    normalize: Normalize,
    monkeypatch: pytest.MonkeyPatch,
) -> Tensor:
    """Returns `[3, parts]`: of the output and every gradient, our error, PyTorch's, the truth."""
    generator = torch.Generator().manual_seed(seed)
    windows, count = draw_windows([0, 1, 2, 30, 64, 65, 200, 3, 0, 17, 129], generator)
    query = torch.randn(len(windows), dim, generator=generator)
    behaviors = torch.randn(count, dim, generator=generator)
    unit = draw_unit(activation, dim, hidden, generator)
    inputs = (query, behaviors, windows, unit)
    double = (query.double(), behaviors.double(), windows, unit.to(torch.float64))

    expected = differentiate(din_attention_reference, double, normalize)
    compiled = differentiate(din_attention, inputs, normalize)
    with monkeypatch.context() as context:
        context.setenv(SWITCH, "0")
        plain = differentiate(din_attention_reference, inputs, normalize)
    return torch.tensor(
        [
            [float((x - truth).square().sum()) for x, truth in zip(found, expected, strict=True)]
            for found in (compiled, plain, [0 * truth for truth in expected])
        ]
    )


def inputs_of(
    lengths: list[int], *, dim: int = 24, activation: Activation = "sigmoid"
) -> tuple[Tensor, Tensor, Tensor, ActivationUnit]:
    generator = torch.Generator().manual_seed(5)
    windows, count = draw_windows(lengths, generator)
    query = torch.randn(len(windows), dim, generator=generator)
    behaviors = torch.randn(count, dim, generator=generator)
    return query, behaviors, windows, draw_unit(activation, dim, (20, 12), generator)


@pytest.mark.parametrize("normalize", ["none", "softmax"])
def test_the_number_of_threads_changes_no_bit(normalize: Normalize) -> None:
    inputs = inputs_of([*range(1, 160), 3000, 1, 1, 700], activation="prelu")
    results = []
    for threads in (1, 2, 7, 1):
        torch.set_num_threads(threads)
        results.append(differentiate(din_attention, inputs, normalize))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_a_window_of_100_000_behaviours_among_short_ones() -> None:
    query, behaviors, windows, unit = inputs_of([3, 100_000, 5, 0, 2], dim=8)
    inputs = (query, behaviors, windows, unit)
    double = (query.double(), behaviors.double(), windows, unit.to(torch.float64))
    actual = differentiate(din_attention, inputs, "softmax")
    expected = differentiate(din_attention_reference, double, "softmax")
    # the gradient of the last bias is zero, and noise of the size of what adds up to it
    assert all(error < 1e-5 for error in relative_errors(actual[:-1], expected[:-1]))


def test_large_scores_neither_overflow_nor_lose_their_order() -> None:
    query, behaviors, windows, unit = inputs_of([4, 90, 40])
    scaled = ActivationUnit(
        activation="sigmoid",
        weights=(*(w * 1e3 for w in unit.weights[:2]), unit.weights[2] * 1e4),
        biases=unit.biases,
    )
    inputs = (query, behaviors, windows, scaled)
    double = (query.double(), behaviors.double(), windows, scaled.to(torch.float64))
    output, *gradients = differentiate(din_attention, inputs, "softmax")
    expected, *_ = differentiate(din_attention_reference, double, "softmax")
    assert all(gradient.isfinite().all() for gradient in gradients)
    torch.testing.assert_close(output.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("normalize", ["none", "softmax"])
def test_what_is_not_a_number_stays_so_and_stays_where_it_is(normalize: Normalize) -> None:
    unit = inputs_of([1])[3]
    generator = torch.Generator().manual_seed(2)
    query, behaviors = torch.randn(3, 24, generator=generator), torch.randn(90, 24)
    windows = torch.tensor([[0, 30], [30, 60], [61, 90]])
    clean, _ = din_attention(query, behaviors, windows, unit, normalize=normalize)
    behaviors[40, 3] = behaviors[60, 0] = torch.nan
    output, _ = din_attention(query, behaviors, windows, unit, normalize=normalize)
    assert output[1].isnan().all()
    assert torch.equal(output[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("window", [(0, 10), (-1, 3), (9, 2**62)])
def test_windows_that_point_outside_are_refused(window: tuple[int, int]) -> None:
    query, behaviors, windows, unit = inputs_of([9])
    windows[0] = torch.tensor(window)
    with pytest.raises(IndexError, match="outside the 9 behaviours"):
        din_attention(query, behaviors, windows, unit)


@pytest.fixture
def _memory_of_nan() -> Iterator[None]:
    """New tensors hold NaN until they are written."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_memory_of_nan")
@pytest.mark.parametrize("normalize", ["none", "softmax"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("lengths", [[0, 0], [0, 40, 0, 3], [300] * 20])
def test_everything_is_written_also_what_no_window_sees(
    lengths: list[int], threads: int, normalize: Normalize
) -> None:
    torch.set_num_threads(threads)
    query, _, _, unit = inputs_of(lengths)
    lengths = lengths * (len(query) // len(lengths))
    query = query[: len(lengths)]
    # before, between and behind the windows there are behaviours
    begins = torch.arange(len(lengths)) * 320 + 10
    windows = torch.stack([begins, begins + torch.tensor(lengths)], dim=1)
    behaviors = torch.randn(320 * len(lengths), query.shape[1])
    inputs = (query, behaviors, windows, unit)
    output, *gradients = differentiate(din_attention, inputs, normalize)
    assert not any(tensor.isnan().any() for tensor in (output, *gradients))
    empty = windows[:, 0] == windows[:, 1]
    seen = torch.zeros(len(behaviors), dtype=torch.bool)
    for begin, end in windows.tolist():
        seen[begin:end] = True
    for rows in (output[empty], gradients[0][empty], gradients[1][~seen]):
        assert not rows.count_nonzero()
    assert (gradients[1][seen] != 0).any(1).all()
