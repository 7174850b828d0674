"""The Triton kernels of target attention through the op, on a GPU or in the interpreter."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker_kernels.target_attention import launch, op, target_attention, triton_groups
from ranker_kernels.target_attention.reference import target_attention_reference

# sides that are no powers of two, to see the masks at work; nobody looks at the last behaviours
HEADS, DIM, WIDTH, NUM_BEHAVIORS, SEEN = 3, 8, 12, 70, 62
# lengths 0, 1, a tile, odd ones, and several pieces; a chain, repeats, and gaps
WINDOWS = [(0, 60), (3, 41), (61, 61), (4, 42), (0, 16), (5, 6), (61, 62), (4, 42)]
SMALL = launch.Tiles(16, 16, piece=32, pieces=6, plan=4)

Inputs = tuple[Tensor, Tensor | None, Tensor, Tensor | None]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture
def device(
    triton_device: str, monkeypatch: pytest.MonkeyPatch, replace_kernels: Callable[..., None]
) -> str:
    monkeypatch.setattr(launch, "choose_tiles", lambda *_: SMALL)
    if triton_device == "cpu":
        replace_kernels(
            target_attention=op.attend_with_triton,
            target_attention_backward=op.differentiate_with_triton,
        )
    return triton_device


def make_inputs(
    *, num_candidates: int = len(WINDOWS), shared: bool = False, bias: bool = True
) -> Inputs:
    generator = torch.Generator().manual_seed(2026)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    query, keys = draw(num_candidates, HEADS, DIM) * DIM**-0.5, draw(NUM_BEHAVIORS, DIM)
    values, biases = draw(NUM_BEHAVIORS, WIDTH), draw(NUM_BEHAVIORS, HEADS)
    return query, None if shared else keys, values, biases if bias else None


def make_index(windows: list[tuple[int, int]]) -> Tensor:
    spans = torch.tensor(windows)
    position = spans[:, :1] + torch.arange(SEEN - 1)
    return position.masked_fill(position >= spans[:, 1:], -1)


def run(
    attend: Callable[..., Tensor],
    inputs: Inputs,
    dtype: torch.dtype,
    *,
    device: str = "cpu",
    hide: bool = False,
) -> list[Tensor]:
    """Returns the output and the gradients of what is given, zeros for those that are None."""
    given = [x.to(device, dtype).clone() for x in inputs if x is not None]
    if hide:
        for rows in given[1:]:
            rows[SEEN:] = torch.nan
    given = [x.requires_grad_() for x in given]
    remaining = iter(given)
    output = attend(*(None if x is None else next(remaining) for x in inputs))
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(7))
    grads = torch.autograd.grad(
        output, given, upstream.to(output), allow_unused=True, materialize_grads=True
    )
    return [x.detach().cpu() for x in (output, *grads)]


def run_kernels(
    inputs: Inputs,
    device: str,
    *,
    windows: Tensor | None = None,
    index: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    hide: bool = False,
) -> list[Tensor]:
    windows = None if windows is None else windows.to(device)
    index = None if index is None else index.to(device)

    def attend(*given: Tensor) -> Tensor:
        return target_attention(*given, windows=windows, index=index)

    return run(attend, inputs, dtype, device=device, hide=hide)


def run_reference(
    inputs: Inputs, rows: list[list[int]], dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    def attend(query: Tensor, keys: Tensor | None, values: Tensor, bias: Tensor | None) -> Tensor:
        keys = values[:, :DIM] if keys is None else keys
        return target_attention_reference(query, keys, values, bias, rows)

    return run(attend, inputs, dtype)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    size = expected.norm().item()
    return (actual.double() - expected).norm().item() / (size if size > 1e-9 else 1.0)


@pytest.mark.parametrize("by", ["windows", "index"])
@pytest.mark.parametrize(
    ("dtype", "shared", "bias"),
    [
        (torch.float32, True, False),
        (torch.float32, False, True),
        (torch.bfloat16, True, True),
    ],
    ids=["shared", "separate, bias", "bfloat16"],
)
def test_values_and_gradients(
    dtype: torch.dtype, shared: bool, bias: bool, by: str, device: str
) -> None:
    inputs = make_inputs(shared=shared, bias=bias)
    # what bfloat16 rounds away of the inputs is no error of the kernels
    query, keys, values, biases = (None if x is None else x.to(dtype).double() for x in inputs)
    assert query is not None
    assert values is not None
    inputs = (query, keys, values, biases)
    rows = [list(range(begin, end)) for begin, end in WINDOWS]
    expected, plain = run_reference(inputs, rows), run_reference(inputs, rows, dtype)
    windows = torch.tensor(WINDOWS) if by == "windows" else None
    index = make_index(WINDOWS) if by == "index" else None
    actual = run_kernels(inputs, device, windows=windows, index=index, dtype=dtype, hide=True)
    # twice the error of plain PyTorch, which is taken to be two roundings at least
    least = 2 * torch.finfo(dtype).eps
    for found, usual, wanted in zip(actual, plain, expected, strict=True):
        assert found.dtype == dtype
        assert relative_error(found, wanted) <= 2 * max(relative_error(usual, wanted), least)


@pytest.mark.gpu
@pytest.mark.parametrize("by", ["windows", "index"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_op_on_a_gpu(dtype: torch.dtype, by: str, cuda: str) -> None:
    """With the tiles that are chosen for one."""
    generator = torch.Generator().manual_seed(2026)
    spans = [(0, 2500)] * 20 + [(3, 2400), (100, 101), (50, 50), (2500, 3000)]
    query = torch.randn(len(spans), 4, 64, generator=generator) / 8
    values = torch.randn(3000, 64, generator=generator)
    inputs = query.to(dtype).double(), None, values.to(dtype).double(), None
    index = torch.randint(0, 3000, (len(spans), 150), generator=generator)
    rows = [list(range(*span)) for span in spans] if by == "windows" else index.tolist()

    def attend(query: Tensor, _keys: None, values: Tensor, bias: None) -> Tensor:
        return target_attention_reference(query, values, values, bias, rows)

    expected, plain = run(attend, inputs, torch.float64), run(attend, inputs, dtype)
    actual = run_kernels(
        inputs,
        cuda,
        windows=torch.tensor(spans) if by == "windows" else None,
        index=index if by == "index" else None,
        dtype=dtype,
    )
    least = 2 * torch.finfo(dtype).eps
    for found, usual, wanted in zip(actual, plain, expected, strict=True):
        assert relative_error(found, wanted) <= 2 * max(relative_error(usual, wanted), least)


def test_a_selection_without_repeats_and_with_holes(device: str) -> None:
    inputs = make_inputs(num_candidates=3)
    index = torch.randperm(SEEN, generator=torch.Generator().manual_seed(1))[:60].view(3, 20)
    index[1, 3:9], index[2] = -1, -1
    rows = [[row for row in selected if row >= 0] for selected in index.tolist()]
    for found, wanted in zip(
        run_kernels(inputs, device, index=index), run_reference(inputs, rows), strict=True
    ):
        assert relative_error(found, wanted) < 2e-6


def test_rows_that_everybody_selects(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    # lists that several programs put in order
    monkeypatch.setattr(launch, "LISTED", 16)
    monkeypatch.setattr(launch, "MERGED", 16)
    inputs = make_inputs(num_candidates=9)
    # the same row twice, rows of one candidate, and a hole
    index = torch.tensor([3, 40, 3, -1]).repeat(9, 1)
    index[4, 1] = 17
    rows = [[row for row in selected if row >= 0] for selected in index.tolist()]
    for found, wanted in zip(
        run_kernels(inputs, device, index=index), run_reference(inputs, rows), strict=True
    ):
        assert relative_error(found, wanted) < 2e-6


@pytest.mark.parametrize("windows", [[(3, 3), (0, 0)], []], ids=["all empty", "no candidate"])
def test_nothing_to_look_at_gives_zeros(windows: list[tuple[int, int]], device: str) -> None:
    inputs = make_inputs(num_candidates=len(windows))
    spans = torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)
    index = torch.full((len(windows), 5), -1)
    for found in (
        *run_kernels(inputs, device, windows=spans),
        *run_kernels(inputs, device, index=index),
        *run_kernels(inputs, device, index=index[:, :0]),
    ):
        assert torch.equal(found, torch.zeros_like(found))


def test_two_runs_agree_bit_for_bit_and_so_nearly_do_other_tiles(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    inputs, windows = make_inputs(), torch.tensor(WINDOWS)
    first, again = (run_kernels(inputs, device, windows=windows) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    monkeypatch.setattr(launch, "choose_tiles", lambda *_: launch.Tiles(32, 64))
    for found, wanted in zip(run_kernels(inputs, device, windows=windows), first, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_long_window_beside_many_short_ones(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    # the interpreter is slow: few, long tiles
    tiles = launch.Tiles(16, 1024, piece=8192) if device == "cpu" else launch.Tiles(16, 32)
    monkeypatch.setattr(launch, "choose_tiles", lambda *_: tiles)
    length = 20_000
    windows = [(0, length), *((at, at + 1 + at % 5) for at in range(0, 60, 3)), (3, length - 7)]
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(len(windows), 1, 4, generator=generator, dtype=torch.float64)
    values = torch.randn(length, 4, generator=generator, dtype=torch.float64)
    inputs = (query, None, values, None)
    expected = run(
        lambda query, keys, values, bias: target_attention_reference(
            query, values, values, bias, [list(range(*window)) for window in windows]
        ),
        inputs,
        torch.float64,
    )
    actual = run_kernels(inputs, device, windows=torch.tensor(windows))
    assert max(relative_error(x, y) for x, y in zip(actual, expected, strict=True)) < 5e-6


@pytest.mark.parametrize("by", ["windows", "index"])
def test_the_op_keeps_its_promises_and_compiles(by: str, device: str) -> None:
    windows = [(0, 17), (4, 9)]
    inputs = make_inputs(num_candidates=2, shared=True)
    spans = torch.tensor(windows, device=device)
    index = torch.tensor([[3, -1, 7], [5, 3, 9]], device=device)
    where = (spans, None) if by == "windows" else (None, index)
    leaves = [None if x is None else x.to(device).float().requires_grad_() for x in inputs]
    torch.library.opcheck(torch.ops.ranker_kernels.target_attention.default, (*leaves, *where))

    def attend(*given: Tensor) -> Tensor:
        return target_attention(*given, windows=where[0], index=where[1])

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for found, wanted in zip(
        run(compiled, inputs, torch.float32, device=device),
        run(attend, inputs, torch.float32, device=device),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("plan", "max_pieces", "piece", "owners"),
    [(4, 6, 8, [0, 0, 0, 0, 1, 2]), (16, 2, 20, [0, 0, 1, 2])],
)
def test_groups_are_chains_of_bounded_size(
    plan: int, max_pieces: int, piece: int, owners: list[int], triton_device: str
) -> None:
    windows = [(0, 5), (4, 9), (9, 12), (2, 3), (20, 20), (1, 30), (40, 41)]
    table = torch.tensor(windows, device=triton_device)
    order = table[:, 0].argsort(stable=True)
    members, groups = torch.empty_like(order), order.new_empty(7, len(windows) + 1)
    items, counts = order.new_empty(len(windows) + max_pieces), order.new_empty(3)
    triton_groups.group_windows[(1,)](
        *(table, order, members, groups, items, counts, len(windows), max_pieces),
        SIZE=3,
        PIECE=8,
        BLOCK=plan,
    )
    found = int(counts[0])
    begins, lows, highs, reached, item_begins, part_begins, _ = groups[:, : found + 1].tolist()
    assert counts.tolist() == [3, len(owners), piece]
    assert [members[slice(*bounds)].tolist() for bounds in itertools.pairwise(begins)] == [
        [0, 5, 3],
        [1, 2],
        [6],
    ]
    assert lows[:-1] == [0, 4, 40]
    assert highs[:-1] == [30, 12, 41]
    assert reached[:-1] == [30, 30, 41]
    assert items[: len(owners)].tolist() == owners
    split = owners.count(0)
    assert item_begins == [0, split, split + 1, split + 2]
    # only a group of several pieces has parts
    assert part_begins == [0, split, split, split]


def test_groups_that_see_a_tile(triton_device: str) -> None:
    # lows, and how far groups reach
    groups = torch.zeros(7, 5, dtype=torch.int64)
    groups[1, :4], groups[3, :4] = torch.tensor([[0, 2, 3, 20], [4, 12, 12, 30]])
    first, last = torch.empty(2, 4, dtype=torch.int64, device=triton_device)
    triton_groups.locate_groups[(2,)](
        groups.to(triton_device),
        torch.tensor([4, 0, 0], device=triton_device),
        *(first, last, 4, 4),
        TILE=8,
        BLOCK=2,
    )
    assert [list(range(*bounds)) for bounds in zip(first, last, strict=True)] == [
        [0, 1, 2],
        [1, 2],
        [3],
        [3],
    ]
