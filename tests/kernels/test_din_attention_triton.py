"""The Triton kernels of DIN's attention, on a GPU or in the interpreter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker_kernels.din_attention import (
    Activation,
    ActivationUnit,
    Moments,
    Normalize,
    din_attention,
    launch,
    op,
)
from ranker_kernels.din_attention.reference import din_attention_reference
from ranker_kernels.din_attention.unit import Gradients

# several rounds of candidates in the interpreter; programs of a GPU have 256 threads
PLAN = 256 if torch.cuda.is_available() else 4
SMALL = launch.Launch(programs=3, tiles=launch.Tiles(16, 16, plan=PLAN))
# a side that is no power of two, to see the masks at work
DIM, HIDDEN, NUM_BEHAVIORS = 12, (20, 9), 80

# 0, 1, tile - 1, tile, tile + 1 and several tiles; behaviours 70 to 79 belong to no window
DISJOINT = [(0, 0), (0, 1), (1, 16), (16, 32), (32, 49), (50, 70), (70, 70)]
OVERLAPPING = [(0, 70), (3, 20), (69, 70), (5, 5), (3, 20), (40, 70)]
# in no order: three alone, chains of three and of four (one window is over before the last tile),
# gaps between, before and behind
MIXED = [
    *((60, 66), (5, 5), (2, 9), (9, 27), (12, 14), (33, 52), (34, 36), (51, 58), (37, 38)),
    *((59, 60), (26, 31)),
]
KINDS: list[Activation] = ["sigmoid", "prelu", "dice"]


pytestmark = pytest.mark.usefixtures("poisoned_memory")


def make_unit(activation: Activation, generator: torch.Generator) -> ActivationUnit:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    alphas = () if activation == "sigmoid" else tuple(draw(n) * 0.3 for n in HIDDEN)
    return ActivationUnit(
        activation=activation,
        weights=(draw(HIDDEN[0], 4 * DIM) / 7, draw(HIDDEN[1], HIDDEN[0]) / 4, draw(1, HIDDEN[1])),
        biases=(draw(HIDDEN[0]) * 0.3, draw(HIDDEN[1]) * 0.3, draw(1)),
        alphas=alphas,
        moments=tuple(Moments(draw(n) * 0.5, draw(n).square() + 0.5) for n in HIDDEN)
        if activation == "dice"
        else (),
    )


def make_inputs(
    windows: list[tuple[int, int]], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns query, behaviours, windows and the upstream gradient."""
    query, upstream = torch.randn(
        2, len(windows), DIM, generator=generator, dtype=torch.float64
    ).unbind()
    behaviors = torch.randn(NUM_BEHAVIORS, DIM, generator=generator, dtype=torch.float64)
    table = torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)
    return query, behaviors, table, upstream


def run_reference(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    upstream: Tensor,
    unit: ActivationUnit,
    normalize: Normalize,
) -> list[Tensor]:
    """Returns the output and all gradients, in the order of `flatten`."""
    leaves = [query, behaviors, *unit.weights, *unit.biases, *unit.alphas]
    num_alphas = len(unit.alphas)
    leaves += [moments.mean for moments in unit.moments]
    leaves += [moments.variance for moments in unit.moments]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    means, variances = leaves[8 + num_alphas :][:num_alphas], leaves[8 + 2 * num_alphas :]
    leaf_unit = ActivationUnit(
        activation=unit.activation,
        weights=tuple(leaves[2:5]),
        biases=tuple(leaves[5:8]),
        alphas=tuple(leaves[8 : 8 + num_alphas]),
        moments=tuple(map(Moments, means, variances)),
    )
    output, _ = din_attention_reference(
        leaves[0], leaves[1], windows, leaf_unit, normalize=normalize
    )
    gradients = torch.autograd.grad(
        output, leaves, upstream, allow_unused=True, materialize_grads=True
    )
    return [output.detach(), *gradients]


def run_kernels(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    upstream: Tensor,
    unit: ActivationUnit,
    normalize: Normalize,
    device: str,
    output: Tensor | None = None,
) -> list[Tensor]:
    """Returns the output and all gradients; the backward is given `output` in its place."""
    query, behaviors, windows, upstream = (
        tensor.to(device) for tensor in (query, behaviors, windows, upstream.float())
    )
    inputs = (query, behaviors, windows, move(unit, device), normalize, SMALL)
    found, terms = launch.forward(*inputs)
    given = found if output is None else output.to(device)
    gradients = launch.backward(upstream, given, terms, *inputs)
    return [tensor.cpu() for tensor in (found, *flatten(gradients))]


def move(unit: ActivationUnit, device: str) -> ActivationUnit:
    return ActivationUnit(
        activation=unit.activation,
        weights=tuple(weight.float().to(device) for weight in unit.weights),
        biases=tuple(bias.float().to(device) for bias in unit.biases),
        alphas=tuple(alpha.float().to(device) for alpha in unit.alphas),
        moments=tuple(
            Moments(m.mean.float().to(device), m.variance.float().to(device)) for m in unit.moments
        ),
    )


def flatten(gradients: Gradients) -> list[Tensor]:
    weights, biases, alphas = gradients.weights, gradients.biases, gradients.alphas
    means = [moments.mean for moments in gradients.moments]
    variances = [moments.variance for moments in gradients.moments]
    return [gradients.query, gradients.behaviors, *weights, *biases, *alphas, *means, *variances]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    size = expected.norm().item()
    return (actual.double() - expected).norm().item() / (size if size > 1e-9 else 1.0)


@pytest.mark.parametrize(
    ("windows", "activation", "normalize"),
    [
        (DISJOINT, "sigmoid", "none"),
        (DISJOINT, "dice", "softmax"),
        (OVERLAPPING, "sigmoid", "softmax"),
        (OVERLAPPING, "prelu", "none"),
        (OVERLAPPING, "dice", "softmax"),
        (MIXED, "sigmoid", "softmax"),
        (MIXED, "prelu", "none"),
    ],
    ids=[
        *("sums", "dice", "overlapping", "overlapping, prelu, sums", "overlapping, dice"),
        *("mixed", "mixed, prelu, sums"),
    ],
)
def test_values_and_gradients_match_the_reference(
    windows: list[tuple[int, int]],
    activation: Activation,
    normalize: Normalize,
    triton_device: str,
) -> None:
    generator = torch.Generator().manual_seed(2026)
    unit = make_unit(activation, generator)
    query, behaviors, table, upstream = make_inputs(windows, generator)
    expected = run_reference(query, behaviors, table, upstream, unit, normalize)
    # what no window covers must not be read
    covered = torch.zeros(NUM_BEHAVIORS, dtype=torch.bool)
    for begin, end in windows:
        covered[begin:end] = True
    behaviors[~covered] = torch.nan
    actual = run_kernels(
        query.float(), behaviors.float(), table, upstream, unit, normalize, triton_device
    )
    errors = [relative_error(a, e) for a, e in zip(actual, expected, strict=True)]
    assert errors[0] < 2e-6
    assert max(errors[1:]) < 1e-5


@pytest.mark.parametrize("windows", [[(3, 3), (0, 0)], []], ids=["all empty", "no candidate"])
def test_nothing_to_attend_to_gives_zeros(
    windows: list[tuple[int, int]], triton_device: str
) -> None:
    generator = torch.Generator().manual_seed(2026)
    unit = make_unit("dice", generator)
    query, behaviors, table, upstream = make_inputs(windows, generator)
    results = run_kernels(
        query.float(), behaviors.float(), table, upstream, unit, "softmax", triton_device
    )
    assert all(torch.equal(result, torch.zeros_like(result)) for result in results)


def test_bfloat16_behaviors_only_add_their_own_rounding(triton_device: str) -> None:
    generator = torch.Generator().manual_seed(2026)
    unit = make_unit("prelu", generator)
    query, behaviors, table, upstream = make_inputs(OVERLAPPING, generator)
    query, behaviors = query.bfloat16(), behaviors.bfloat16()
    expected = run_reference(query.double(), behaviors.double(), table, upstream, unit, "softmax")
    # the backward takes any dtype: from an exact output, gradients of weights are nearly exact
    actual = run_kernels(
        query,
        behaviors,
        table,
        upstream,
        unit,
        "softmax",
        triton_device,
        output=expected[0].float(),
    )
    # the interpreter multiplies in float32, tensor cores round activations as well
    for found, wanted in zip(actual, expected, strict=True):
        own = 1e-5 if found.dtype == torch.float32 else torch.finfo(found.dtype).eps
        assert relative_error(found, wanted) < (own if triton_device == "cpu" else 5e-2)


def test_two_runs_agree_bit_for_bit_and_so_do_other_shapes_of_the_launch(
    triton_device: str,
) -> None:
    generator = torch.Generator().manual_seed(2026)
    unit = move(make_unit("sigmoid", generator), triton_device)
    query, behaviors, table, _ = (x.to(triton_device) for x in make_inputs(OVERLAPPING, generator))
    inputs = (query.float(), behaviors.float(), table, unit, "softmax")
    first, _ = launch.forward(*inputs, SMALL)  # type: ignore[arg-type]
    again, _ = launch.forward(*inputs, SMALL)  # type: ignore[arg-type]
    assert torch.equal(first, again)
    wide = launch.Launch(programs=2, tiles=launch.Tiles(64, 32, plan=4 * PLAN))
    torch.testing.assert_close(launch.forward(*inputs, wide)[0], first)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", KINDS)
def test_the_op_on_a_gpu(activation: Activation, dtype: torch.dtype, cuda: str) -> None:
    generator = torch.Generator().manual_seed(2026)
    unit = make_unit(activation, generator)
    query, behaviors, table, upstream = make_inputs(OVERLAPPING, generator)
    query, behaviors = query.to(dtype), behaviors.to(dtype)
    expected = run_reference(query.double(), behaviors.double(), table, upstream, unit, "softmax")
    leaves = (query.to(cuda).requires_grad_(), behaviors.to(cuda).requires_grad_())
    output, _ = din_attention(*leaves, table.to(cuda), move(unit, cuda), normalize="softmax")
    gradients = torch.autograd.grad(output, leaves, upstream.to(output))
    bound = 1e-5 if dtype == torch.float32 else 5e-2
    for actual, wanted in zip((output, *gradients), expected[:3], strict=True):
        assert relative_error(actual.cpu(), wanted) < bound


def test_the_op_keeps_its_promises_and_compiles(
    triton_device: str, monkeypatch: pytest.MonkeyPatch, replace_kernels: Callable[..., None]
) -> None:
    if triton_device == "cpu":
        monkeypatch.setattr(launch, "choose_launch", lambda *_: SMALL)
        replace_kernels(
            din_attention=op.attend_with_triton,
            din_attention_backward=op.differentiate_with_triton,
        )
    generator = torch.Generator().manual_seed(2026)
    unit = move(make_unit("dice", generator), triton_device)
    windows = [(0, 17), (4, 9)]
    query, behaviors, table, _ = (x.to(triton_device) for x in make_inputs(windows, generator))
    leaves = [query.float().requires_grad_(), behaviors.float().requires_grad_()]
    moments = list(unit.moments)
    arguments = (
        *(*leaves, table, list(unit.weights), list(unit.biases), list(unit.alphas)),
        *([part.mean for part in moments], [part.variance for part in moments]),
        *(unit.activation, "softmax"),
    )
    torch.library.opcheck(torch.ops.ranker_kernels.din_attention.default, arguments)

    def attend(query: Tensor, behaviors: Tensor) -> Tensor:
        return din_attention(query, behaviors, table, unit, normalize="softmax")[0]

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for function in (attend, compiled):
        output = function(*leaves)
        gradients = torch.autograd.grad(output, leaves, torch.ones_like(output))
        if function is attend:
            expected = (output, *gradients)
        for found, wanted in zip((output, *gradients), expected, strict=True):
            torch.testing.assert_close(found, wanted)
