import dataclasses
import itertools
from typing import Any, Protocol

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
from ranker_kernels.din_attention.op import attend
from ranker_kernels.din_attention.reference import din_attention_reference
from ranker_kernels.native import SWITCH

DIM = 8
HIDDEN = (10, 6)

# begin and end; 60 behaviours
WINDOWS = {
    "disjoint": [(0, 1), (1, 8), (8, 8), (8, 23), (23, 60)],
    "overlapping": [(0, 60), (3, 41), (40, 60), (59, 60), (60, 60), (17, 18), (0, 33)],
    "shared": [(5, 50)] * 6 + [(0, 0)] + [(5, 50)] * 3,
    "all empty": [(0, 0), (60, 60), (7, 7)],
    "no candidate": [],
}
# activation, and whether Dice is given its moments; the last takes them from the batch
MODES: list[tuple[Activation, bool]] = [
    ("sigmoid", False),
    ("prelu", False),
    ("dice", True),
    ("dice", False),
]


def make_unit(
    activation: Activation,
    *,
    given_moments: bool = False,
    hidden: tuple[int, ...] = HIDDEN,
    generator: torch.Generator,
) -> ActivationUnit:
    widths = [4 * DIM, *hidden, 1]
    draw = [torch.randn(n, generator=generator, dtype=torch.float64) for n in hidden]
    return ActivationUnit(
        activation=activation,
        weights=tuple(
            torch.randn(n, m, generator=generator, dtype=torch.float64) * m**-0.5
            for m, n in itertools.pairwise(widths)
        ),
        biases=tuple(
            torch.randn(n, generator=generator, dtype=torch.float64) * 0.3 for n in widths[1:]
        ),
        alphas=() if activation == "sigmoid" else tuple(alpha * 0.3 for alpha in draw),
        moments=tuple(Moments(alpha * 0.5, alpha.square() + 0.5) for alpha in draw)
        if given_moments
        else (),
    )


def make_inputs(
    windows: list[tuple[int, int]], num_behaviors: int = 60, *, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    query = torch.randn(len(windows), DIM, generator=generator, dtype=torch.float64)
    behaviors = torch.randn(num_behaviors, DIM, generator=generator, dtype=torch.float64)
    return query, behaviors, torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)


def as_leaves(unit: ActivationUnit, dtype: torch.dtype) -> ActivationUnit:
    def leaves(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(dtype).detach().requires_grad_() for tensor in tensors)

    return dataclasses.replace(
        unit,
        weights=leaves(unit.weights),
        biases=leaves(unit.biases),
        alphas=leaves(unit.alphas),
        moments=tuple(Moments(m.mean.to(dtype), m.variance.to(dtype)) for m in unit.moments),
    )


class Attention(Protocol):
    def __call__(
        self,
        query: Tensor,
        behaviors: Tensor,
        windows: Tensor,
        unit: ActivationUnit,
        *,
        normalize: Normalize,
    ) -> tuple[Tensor, tuple[Moments, ...]]: ...


def run(
    attention: Attention,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    unit: ActivationUnit,
    normalize: Normalize,
    dtype: torch.dtype,
) -> tuple[Tensor, dict[str, Tensor], tuple[Moments, ...]]:
    """Returns the output, the gradient of everything learned by name, and the batch's moments."""
    query = query.to(dtype).detach().requires_grad_()
    behaviors = behaviors.to(dtype).detach().requires_grad_()
    unit = as_leaves(unit, dtype)
    output, moments = attention(query, behaviors, windows, unit, normalize=normalize)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(7)).bfloat16()
    torch.autograd.backward(output, upstream.to(dtype))
    learned = {"query": query, "behaviors": behaviors}
    for part in ("weights", "biases", "alphas"):
        learned |= {f"{part}[{i}]": leaf for i, leaf in enumerate(getattr(unit, part))}
    gradients = {
        name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in learned.items()
    }
    return output.detach(), gradients, moments


def relative_error(actual: Tensor, expected: Tensor) -> float:
    difference = (actual.double() - expected).norm().item()
    # a gradient that is zero in exact arithmetic (the score's bias under softmax, empty windows)
    # is compared with one
    size = expected.norm().item()
    return difference / (size if size > 1e-9 else 1.0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2026)


# the reference has no statistics of nothing; a test of its own has Dice on batches without pairs
CASES = [
    pytest.param(windows, activation, given_moments, id=f"{name}-{activation}-{given_moments}")
    for name, windows in WINDOWS.items()
    for activation, given_moments in MODES
    if (activation, given_moments) != ("dice", False) or any(end > begin for begin, end in windows)
]


@pytest.mark.parametrize("native", ["0", "1"])
@pytest.mark.parametrize("normalize", ["none", "softmax"])
@pytest.mark.parametrize(("windows", "activation", "given_moments"), CASES)
def test_values_and_gradients_match_the_reference(
    windows: list[tuple[int, int]],
    activation: Activation,
    given_moments: bool,
    normalize: Normalize,
    native: str,
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # without, and with, the compiled code, which is there for float32
    monkeypatch.setenv(SWITCH, native)
    unit = make_unit(activation, given_moments=given_moments, generator=generator)
    inputs = make_inputs(windows, generator=generator)

    expected = run(din_attention_reference, *inputs, unit, normalize, torch.float64)
    for dtype, output_bound, gradient_bound in (
        (torch.float64, 1e-13, 1e-12),
        (torch.float32, 2e-6, 1e-5),
    ):
        output, gradients, moments = run(din_attention, *inputs, unit, normalize, dtype)
        assert relative_error(output, expected[0]) < output_bound
        for name, gradient in gradients.items():
            assert relative_error(gradient, expected[1][name]) < gradient_bound, name
        for actual, wanted in zip(moments, expected[2], strict=True):
            assert relative_error(actual.mean, wanted.mean) < output_bound
            assert relative_error(actual.variance, wanted.variance) < output_bound


@pytest.mark.parametrize("activation", ["sigmoid", "dice"])
@pytest.mark.parametrize("hidden", [(5,), (7, 4, 3)])
def test_any_number_of_hidden_layers(
    activation: Activation, hidden: tuple[int, ...], generator: torch.Generator
) -> None:
    unit = make_unit(activation, hidden=hidden, generator=generator)
    inputs = make_inputs(WINDOWS["overlapping"], generator=generator)
    expected = run(din_attention_reference, *inputs, unit, "none", torch.float64)
    output, gradients, _ = run(din_attention, *inputs, unit, "none", torch.float64)
    assert relative_error(output, expected[0]) < 1e-13
    for name, gradient in gradients.items():
        assert relative_error(gradient, expected[1][name]) < 1e-12, name


@pytest.mark.parametrize("sharing", [1, 6])
def test_a_batch_of_several_blocks(sharing: int, generator: torch.Generator) -> None:
    lengths = torch.randint(0, 700, (8,), generator=generator).tolist()
    ends = torch.tensor(lengths).cumsum(0).tolist()
    windows = [(end - n, end) for end, n in zip(ends, lengths, strict=True)] * sharing
    unit = make_unit("prelu", generator=generator)
    inputs = make_inputs(windows, ends[-1], generator=generator)
    expected = run(din_attention_reference, *inputs, unit, "softmax", torch.float64)
    output, gradients, _ = run(din_attention, *inputs, unit, "softmax", torch.float64)
    assert relative_error(output, expected[0]) < 1e-13
    for name, gradient in gradients.items():
        assert relative_error(gradient, expected[1][name]) < 1e-11, name


@pytest.mark.parametrize("normalize", ["none", "softmax"])
@pytest.mark.parametrize("num_candidates", [0, 3])
def test_dice_in_training_survives_a_batch_without_pairs(
    normalize: Normalize, num_candidates: int, generator: torch.Generator
) -> None:
    unit = make_unit("dice", generator=generator)
    inputs = make_inputs([(9, 9)] * num_candidates, generator=generator)
    output, gradients, moments = run(din_attention, *inputs, unit, normalize, torch.float32)
    assert torch.equal(output, torch.zeros(num_candidates, DIM))
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients.values())
    assert [m.mean.abs().sum() + m.variance.abs().sum() for m in moments] == [0, 0]


def test_dice_is_batch_normalisation_and_a_gate_over_the_valid_pairs(
    generator: torch.Generator,
) -> None:
    unit = make_unit("dice", hidden=(10,), generator=generator)
    query, behaviors, windows = make_inputs(WINDOWS["overlapping"], generator=generator)
    output, (moments,) = din_attention(query, behaviors, windows, unit)

    norm = torch.nn.BatchNorm1d(10, affine=False, eps=1e-8, momentum=1.0, dtype=torch.float64)
    rows = [(c, j) for c, (begin, end) in enumerate(windows.tolist()) for j in range(begin, end)]
    candidate, behavior = torch.tensor(rows).unbind(1)
    q, k = query[candidate], behaviors[behavior]
    z = torch.cat([q, k, q - k, q * k], dim=1) @ unit.weights[0].T + unit.biases[0]
    gate = torch.sigmoid(norm(z))
    scores = (gate * z + (1 - gate) * unit.alphas[0] * z) @ unit.weights[1].T + unit.biases[1]
    expected = torch.zeros_like(query).index_add(0, candidate, scores * k)

    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(moments.mean, norm.running_mean)
    # BatchNorm1d keeps the unbiased variance
    torch.testing.assert_close(moments.variance * len(rows) / (len(rows) - 1), norm.running_var)


@pytest.mark.parametrize("normalize", ["none", "softmax"])
@pytest.mark.parametrize(("activation", "given_moments"), MODES)
def test_gradcheck(
    activation: Activation, given_moments: bool, normalize: Normalize, generator: torch.Generator
) -> None:
    unit = make_unit(activation, given_moments=given_moments, hidden=(3, 2), generator=generator)
    query, behaviors, windows = make_inputs([(0, 4), (2, 5), (3, 3)], 5, generator=generator)
    unit = as_leaves(unit, torch.float64)
    learned = (query.requires_grad_(), behaviors.requires_grad_(), *unit.weights, *unit.biases)

    def attention(query: Tensor, behaviors: Tensor, *_: Tensor) -> Tensor:
        return din_attention(query, behaviors, windows, unit, normalize=normalize)[0]

    assert torch.autograd.gradcheck(attention, (*learned, *unit.alphas), fast_mode=True)


@pytest.mark.parametrize(("activation", "given_moments"), MODES)
def test_bfloat16_is_no_worse_than_rounding_its_inputs(
    activation: Activation, given_moments: bool, generator: torch.Generator
) -> None:
    unit = make_unit(activation, given_moments=given_moments, generator=generator)
    query, behaviors, windows = make_inputs(WINDOWS["overlapping"], generator=generator)
    output, gradients, _ = run(
        din_attention, query, behaviors, windows, unit, "softmax", torch.bfloat16
    )
    rounded = as_leaves(as_leaves(unit, torch.bfloat16), torch.float64)
    expected, expected_gradients, _ = run(
        din_attention_reference,
        query.bfloat16(),
        behaviors.bfloat16(),
        windows,
        rounded,
        "softmax",
        torch.float64,
    )
    assert output.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: one rounding of the result is at most 2**-9
    assert relative_error(output, expected) < 2**-8
    for name, gradient in gradients.items():
        assert relative_error(gradient, expected_gradients[name]) < 2e-2, name


@pytest.mark.parametrize(("activation", "given_moments"), MODES)
def test_permuting_candidates_permutes_outputs(
    activation: Activation, given_moments: bool, generator: torch.Generator
) -> None:
    unit = make_unit(activation, given_moments=given_moments, generator=generator)
    query, behaviors, windows = make_inputs(WINDOWS["overlapping"], generator=generator)
    order = torch.randperm(len(query), generator=generator)
    output, _ = din_attention(query, behaviors, windows, unit, normalize="softmax")
    permuted, _ = din_attention(query[order], behaviors, windows[order], unit, normalize="softmax")
    torch.testing.assert_close(permuted, output[order])


@pytest.mark.parametrize(("activation", "given_moments"), MODES[:3])
def test_an_output_does_not_depend_on_the_rest_of_the_batch(
    activation: Activation, given_moments: bool, generator: torch.Generator
) -> None:
    unit = make_unit(activation, given_moments=given_moments, generator=generator)
    query, behaviors, windows = make_inputs(WINDOWS["overlapping"], generator=generator)
    together, _ = din_attention(query, behaviors, windows, unit)
    begin, end = windows[1].tolist()
    alone, _ = din_attention(query[1:2], behaviors[begin:end], windows[1:2] - begin, unit)
    torch.testing.assert_close(alone, together[1:2])


def test_transposed_inputs_and_weights_give_the_same(generator: torch.Generator) -> None:
    unit = make_unit("prelu", generator=generator)
    query, behaviors, windows = make_inputs(WINDOWS["overlapping"], generator=generator)
    expected = run(din_attention, query, behaviors, windows, unit, "softmax", torch.float64)
    transposed = dataclasses.replace(unit, weights=tuple(w.mT.clone().mT for w in unit.weights))
    inputs = (query.mT.clone().mT, behaviors.mT.clone().mT, windows)
    actual = run(din_attention, *inputs, transposed, "softmax", torch.float64)
    torch.testing.assert_close(actual[:2], expected[:2])


def test_behaviours_outside_every_window_are_never_read(generator: torch.Generator) -> None:
    unit = make_unit("sigmoid", generator=generator)
    query, behaviors, windows = make_inputs([(2, 5), (4, 9), (30, 30)], generator=generator)
    expected, _ = din_attention(query, behaviors, windows, unit)
    behaviors[:2] = behaviors[9:] = torch.nan
    output, _ = din_attention(query, behaviors, windows, unit)
    assert torch.equal(output, expected)


def parts(unit: ActivationUnit) -> tuple[list[Tensor], ...]:
    means, variances = [m.mean for m in unit.moments], [m.variance for m in unit.moments]
    return list(unit.weights), list(unit.biases), list(unit.alphas), means, variances


@pytest.mark.parametrize(("activation", "given_moments"), MODES[:3])
def test_opcheck(activation: Activation, given_moments: bool, generator: torch.Generator) -> None:
    unit = make_unit(activation, given_moments=given_moments, generator=generator)
    unit = as_leaves(unit, torch.float32)
    query, behaviors, windows = make_inputs(WINDOWS["overlapping"], generator=generator)
    arguments = (query.float().requires_grad_(), behaviors.float().requires_grad_(), windows)
    torch.library.opcheck(attend.overload, (*arguments, *parts(unit), activation, "softmax"))


@pytest.mark.parametrize(("activation", "given_moments"), [("prelu", False), ("dice", False)])
def test_compiles_into_one_graph(
    activation: Activation, given_moments: bool, generator: torch.Generator
) -> None:
    unit = make_unit(activation, given_moments=given_moments, generator=generator)
    inputs = make_inputs(WINDOWS["overlapping"], generator=generator)
    compiled = torch.compile(din_attention, fullgraph=True, backend="aot_eager")
    expected = run(din_attention, *inputs, unit, "softmax", torch.float64)
    output, gradients, _ = run(compiled, *inputs, unit, "softmax", torch.float64)
    torch.testing.assert_close(output, expected[0])
    torch.testing.assert_close(gradients, expected[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "relu"}, "activation is 'relu'"),
        ({"biases": ()}, "3 weights and 0 biases"),
        ({"alphas": ()}, "takes 2 alphas, got 0"),
        ({"moments": (Moments(torch.zeros(10), torch.ones(10)),)}, "got 1 moments"),
    ],
)
def test_a_unit_with_missing_parts_is_refused(
    change: dict[str, Any], message: str, generator: torch.Generator
) -> None:
    unit = make_unit("dice", generator=generator)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(unit, **change)


def test_shapes_that_do_not_fit_are_refused(generator: torch.Generator) -> None:
    unit = make_unit("sigmoid", generator=generator)
    query, behaviors, windows = make_inputs(WINDOWS["overlapping"], generator=generator)
    with pytest.raises(ValueError, match="same D"):
        din_attention(query, behaviors[:, :4], windows, unit)
    with pytest.raises(ValueError, match=r"windows is torch\.int32"):
        din_attention(query, behaviors, windows.int(), unit)
    with pytest.raises(ValueError, match=r"windows is torch\.int64"):
        din_attention(query, behaviors, windows[:3], unit)
    with pytest.raises(ValueError, match="has 32 columns"):
        din_attention(query[:, :4], behaviors[:, :4], windows, unit)
    with pytest.raises(ValueError, match="'sum'"):
        din_attention(query, behaviors, windows, unit, normalize="sum")  # type: ignore[arg-type]
    wide = dataclasses.replace(unit, weights=(*unit.weights[:2], unit.weights[2].expand(2, -1)))
    with pytest.raises(ValueError, match="has 2 rows"):
        din_attention(query, behaviors, windows, wide)
