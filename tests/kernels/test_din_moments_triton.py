"""The Triton kernels of Dice's statistics of a batch, on a GPU or in the interpreter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker_kernels.din_attention import (
    ActivationUnit,
    Moments,
    batch_moments,
    din_attention,
    launch,
    launch_moments,
    op,
)
from ranker_kernels.din_attention.reference import din_attention_reference
from ranker_kernels.din_attention.unit import Layers

# several rounds of candidates in the interpreter; programs of a GPU have 256 threads
PLAN = 256 if torch.cuda.is_available() else 4
SMALL = launch.Launch(programs=3, tiles=launch.Tiles(16, 16, plan=PLAN))
# sides that are no powers of two, to see the masks at work
DIM, HIDDEN, NUM_BEHAVIORS = 12, (20, 9), 60

# 0, 1, tile, tile + 1 and several tiles; behaviours 50 to 59 belong to no window
DISJOINT = [(0, 0), (0, 1), (1, 17), (17, 34), (35, 50)]
# two chains, one with a window that is over before the last tile, and one alone
OVERLAPPING = [(30, 48), (5, 5), (2, 9), (9, 27), (12, 14), (12, 28), (47, 50)]
WINDOWS = {"disjoint": DISJOINT, "overlapping": OVERLAPPING}

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def draw(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale


def make_layers(depth: int) -> Layers:
    """Returns what there is for the moments of the first or the second layer."""
    widths = (4 * DIM, *HIDDEN)
    return Layers(
        activation="dice",
        weights=tuple(draw(i, widths[i + 1], widths[i], scale=0.2) for i in range(depth)),
        biases=tuple(draw(10 + i, widths[i + 1]) for i in range(depth)),
        alphas=tuple(draw(20 + i, widths[i + 1], scale=0.3) for i in range(depth - 1)),
        moments=tuple(
            Moments(draw(30 + i, widths[i + 1], scale=0.5), 0.5 + draw(40 + i, widths[i + 1]) ** 2)
            for i in range(depth - 1)
        ),
    )


def make_inputs(windows: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    table = torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)
    return draw(1, len(windows), DIM), draw(2, NUM_BEHAVIORS, DIM), table


def list_learned(query: Tensor, behaviors: Tensor, layers: Layers) -> list[Tensor]:
    """Lists what has a gradient, in the order of the op's."""
    learned = [query, behaviors, *layers.weights, *layers.biases, *layers.alphas]
    learned += [moments.mean for moments in layers.moments]
    return learned + [moments.variance for moments in layers.moments]


def run_formula(
    query: Tensor, behaviors: Tensor, windows: Tensor, layers: Layers, upstream: Moments
) -> list[Tensor]:
    """Returns mean, variance and all gradients in float64, with every pair in memory."""
    learned = list_learned(query, behaviors, layers)
    for tensor in learned:
        tensor.requires_grad_()
    candidate = torch.repeat_interleave(windows[:, 1] - windows[:, 0])
    behavior = torch.cat([torch.arange(*window) for window in windows.tolist()])
    q, k = query[candidate], behaviors[behavior]
    z = torch.cat([q, k, q - k, q * k], dim=1) @ layers.weights[0].T + layers.biases[0]
    if len(layers.weights) == 2:
        (alpha,), (moments,) = layers.alphas, layers.moments
        gate = torch.sigmoid((z - moments.mean) / torch.sqrt(moments.variance + 1e-8))
        h = gate * z + (1 - gate) * alpha * z
        z = h @ layers.weights[1].T + layers.biases[1]
    found = Moments(z.mean(0), z.var(0, correction=0))
    gradients = torch.autograd.grad(found, learned, upstream)
    for tensor in learned:
        tensor.requires_grad = False
    return [*(tensor.detach() for tensor in found), *gradients]


def run_kernels(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    layers: Layers,
    upstream: Moments,
    device: str,
    spread: launch.Launch = SMALL,
) -> list[Tensor]:
    """Returns mean, variance and all gradients."""
    query, behaviors, windows = (part.to(device) for part in (query, behaviors, windows))
    layers = Layers(
        activation=layers.activation,
        weights=tuple(part.float().to(device) for part in layers.weights),
        biases=tuple(part.float().to(device) for part in layers.biases),
        alphas=tuple(part.float().to(device) for part in layers.alphas),
        moments=tuple(Moments(*(p.float().to(device) for p in pair)) for pair in layers.moments),
    )
    upstream = Moments(*(part.float().to(device) for part in upstream))
    inputs = (query, behaviors, windows, layers, spread)
    found = launch_moments.forward_moments(*inputs)
    gradients = launch_moments.backward_moments(upstream, found.mean, *inputs)
    learned = list_learned(query, behaviors, layers)
    return [part.cpu() for part in (*found, *op.flatten(gradients, learned))]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    size = expected.norm().item()
    return (actual.double() - expected).norm().item() / (size if size > 1e-9 else 1.0)


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS.keys())
@pytest.mark.parametrize("depth", [1, 2])
def test_values_and_gradients_match_the_formula(
    depth: int, windows: list[tuple[int, int]], triton_device: str
) -> None:
    layers, inputs = make_layers(depth), make_inputs(windows)
    upstream = Moments(*draw(3, 2, HIDDEN[depth - 1]))
    expected = run_formula(*inputs, layers, upstream)
    query, behaviors, table = inputs
    # what no window covers must not be read
    covered = torch.zeros(NUM_BEHAVIORS, dtype=torch.bool)
    for begin, end in windows:
        covered[begin:end] = True
    behaviors[~covered] = torch.nan
    actual = run_kernels(query.float(), behaviors.float(), table, layers, upstream, triton_device)
    errors = [relative_error(a, e) for a, e in zip(actual, expected, strict=True)]
    assert max(errors[:2]) < 2e-6
    assert max(errors[2:]) < 1e-5


@pytest.mark.parametrize("windows", [[(3, 3), (0, 0)], []], ids=["all empty", "no candidate"])
def test_without_a_pair_all_is_zero(windows: list[tuple[int, int]], triton_device: str) -> None:
    query, behaviors, table = make_inputs(windows)
    upstream = Moments(*draw(3, 2, HIDDEN[1]))
    results = run_kernels(
        query.float(), behaviors.float(), table, make_layers(2), upstream, triton_device
    )
    assert all(torch.equal(result, torch.zeros_like(result)) for result in results)


@pytest.mark.parametrize("depth", [1, 2])
def test_bfloat16_behaviors_only_add_their_own_rounding(depth: int, triton_device: str) -> None:
    layers = make_layers(depth)
    query, behaviors, table = make_inputs(OVERLAPPING)
    query, behaviors = query.bfloat16(), behaviors.bfloat16()
    upstream = Moments(*draw(3, 2, HIDDEN[depth - 1]))
    expected = run_formula(query.double(), behaviors.double(), table, layers, upstream)
    actual = run_kernels(query, behaviors, table, layers, upstream, triton_device)
    # the interpreter multiplies in float32, tensor cores round activations as well
    for found, wanted in zip(actual, expected, strict=True):
        own = 1e-5 if found.dtype == torch.float32 else torch.finfo(found.dtype).eps
        assert relative_error(found, wanted) < (own if triton_device == "cpu" else 5e-2)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_variance_beside_a_large_mean_keeps_its_digits(depth: int, triton_device: str) -> None:
    layers = make_layers(depth)
    layers.biases[-1].fill_(1e4)
    query, behaviors, table = make_inputs(OVERLAPPING)
    upstream = Moments(*draw(3, 2, HIDDEN[depth - 1]))
    expected = run_formula(query, behaviors, table, layers, upstream)
    for programs in (1, 3):
        spread = launch.Launch(programs=programs, tiles=SMALL.tiles)
        actual = run_kernels(
            query.float(), behaviors.float(), table, layers, upstream, triton_device, spread
        )
        # z itself has lost four digits, its deviations are no worse
        torch.testing.assert_close(actual[1].double(), expected[1], rtol=2e-3, atol=0)


def test_two_runs_agree_bit_for_bit(triton_device: str) -> None:
    layers, (query, behaviors, table) = make_layers(2), make_inputs(OVERLAPPING)
    upstream = Moments(*draw(3, 2, HIDDEN[1]))
    inputs = (query.float(), behaviors.float(), table, layers, upstream, triton_device)
    for first, again in zip(run_kernels(*inputs), run_kernels(*inputs), strict=True):
        assert torch.equal(first, again)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_op_keeps_its_promises(
    depth: int,
    triton_device: str,
    monkeypatch: pytest.MonkeyPatch,
    replace_kernels: Callable[..., None],
) -> None:
    """A third layer is PyTorch's."""
    if triton_device == "cpu":
        monkeypatch.setattr(launch, "choose_launch", lambda *_: SMALL)
        replace_kernels(
            din_moments=batch_moments.find_with_triton,
            din_moments_backward=batch_moments.differentiate_with_triton,
        )
    widths = (4 * DIM, *HIDDEN, 5)

    def move(tensor: Tensor) -> Tensor:
        return tensor.float().to(triton_device).requires_grad_()

    query, behaviors, table = make_inputs([(0, 17), (4, 9)])
    moments = [(draw(30 + n, n), 0.5 + draw(40 + n, n) ** 2) for n in widths[1:depth]]
    torch.library.opcheck(
        torch.ops.ranker_kernels.din_moments.default,
        (
            *(move(query), move(behaviors), table.to(triton_device)),
            [move(draw(i, widths[i + 1], widths[i], scale=0.2)) for i in range(depth)],
            [move(draw(10 + i, widths[i + 1])) for i in range(depth)],
            [move(draw(20 + n, n, scale=0.3)) for n in widths[1:depth]],
            [move(mean) for mean, _ in moments],
            [move(variance) for _, variance in moments],
        ),
    )


def test_the_attention_with_the_statistics_of_the_batch(
    triton_device: str, monkeypatch: pytest.MonkeyPatch, replace_kernels: Callable[..., None]
) -> None:
    if triton_device == "cpu":
        monkeypatch.setattr(launch, "choose_launch", lambda *_: SMALL)
        replace_kernels(
            din_attention=op.attend_with_triton,
            din_attention_backward=op.differentiate_with_triton,
            din_moments=batch_moments.find_with_triton,
            din_moments_backward=batch_moments.differentiate_with_triton,
        )
    query, behaviors, table = make_inputs(OVERLAPPING)
    widths = (4 * DIM, *HIDDEN, 1)
    parts = (
        *(query, behaviors),
        *(draw(i, widths[i + 1], widths[i], scale=0.2) for i in range(3)),
        *(draw(10 + i, widths[i + 1]) for i in range(3)),
        *(draw(20 + i, widths[i + 1], scale=0.3) for i in range(2)),
    )
    results = []
    for attend, dtype, device in (
        (din_attention_reference, torch.float64, "cpu"),
        (din_attention, torch.float32, triton_device),
    ):
        leaves = [part.to(device, dtype).requires_grad_() for part in parts]
        unit = ActivationUnit(
            activation="dice",
            weights=tuple(leaves[2:5]),
            biases=tuple(leaves[5:8]),
            alphas=tuple(leaves[8:]),
        )
        output, moments = attend(leaves[0], leaves[1], table.to(device), unit, normalize="softmax")
        gradients = torch.autograd.grad(output, leaves, draw(3, *query.shape).to(output))
        found = (output.detach(), *(part for pair in moments for part in pair), *gradients)
        results.append([part.cpu() for part in found])
    # that of the score's bias is zero under a softmax, and its error absolute
    for actual, wanted in zip(*reversed(results), strict=True):
        assert relative_error(actual, wanted) < 1e-5
