"""The compiled path of `target_attention` over windows: sizes, sharing, threads, accuracy."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ranker_kernels.native import SWITCH
from ranker_kernels.target_attention import blocked, target_attention
from ranker_kernels.target_attention.compiled import find_library
from ranker_kernels.target_attention.reference import target_attention_reference

Inputs = tuple[Tensor, Tensor | None, Tensor, Tensor | None]
Windows = list[tuple[int, int]]

pytestmark = pytest.mark.usefixtures("poisoned_memory")

# empty, length 1, around a tile of 64, overlapping, equal, nearly equal, in no order
MIXED: Windows = [
    *[(0, 0), (300, 300), (5, 6), (0, 63), (63, 127), (127, 192), (10, 75), (192, 321)],
    *[(400, 700)] * 20,
    *[(400 + i, 690 + i) for i in range(10)],
    *[(0, 700), (650, 700), (2, 5), (699, 700)],
]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    found = find_library(torch.zeros(1, 1, 1), selects=False)
    assert found is not None, "these tests need a C++ compiler"
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(
    windows: Windows, *, heads: int, dim: int, width: int, keys: bool, bias: bool, rows: int = 700
) -> tuple[Inputs, Tensor]:
    generator = torch.Generator().manual_seed(100 * heads + dim)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    inputs = (
        numbers(len(windows), heads, dim),
        numbers(rows, dim) if keys else None,
        numbers(rows, width),
        numbers(rows, heads) if bias else None,
    )
    return inputs, torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)


def differentiate(inputs: Inputs, windows: Tensor) -> list[Tensor]:
    """Returns the output and every gradient."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs]
    query, keys, values, bias = leaves
    assert query is not None
    assert values is not None
    output = target_attention(query, keys, values, bias, windows=windows)
    generator = torch.Generator().manual_seed(9)
    upstream = torch.randn(output.shape, generator=generator).to(output.dtype)
    given = [leaf for leaf in leaves if leaf is not None]
    return [output.detach(), *torch.autograd.grad(output, given, upstream)]


def check_errors(inputs: Inputs, windows: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares output and gradients with float64: at most twice the error of PyTorch."""
    double = tuple(None if t is None else t.double() for t in inputs)
    exact = differentiate(double, windows)  # type: ignore[arg-type]
    compiled = differentiate(inputs, windows)
    monkeypatch.setenv(SWITCH, "0")
    for mine, plain, true in zip(compiled, differentiate(inputs, windows), exact, strict=True):
        scale = true.norm().clamp_min(1e-6)
        error, allowed = ((x.double() - true).norm() / scale for x in (mine, plain))
        assert error <= 2 * allowed + 1e-7


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("heads", "dim", "width"), [(1, 1, 1), (4, 32, 35), (3, 7, 20), (17, 16, 16), (70, 40, 64)]
)
def test_it_errs_no_more_than_pytorch(
    heads: int, dim: int, width: int, keys: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = draw(MIXED, heads=heads, dim=dim, width=width, keys=keys, bias=bias)
    check_errors(*given, monkeypatch)


def test_very_long_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [(0, 50_000), (1, 50_001), (0, 50_001), (49_999, 50_001)]
    given = draw(windows, heads=2, dim=9, width=9, keys=False, bias=True, rows=50_001)
    check_errors(*given, monkeypatch)


def test_it_matches_the_formula() -> None:
    given, windows = draw(MIXED, heads=4, dim=8, width=12, keys=True, bias=True)
    query, keys, values, bias = given
    assert keys is not None
    output = target_attention(query, keys, values, bias, windows=windows)
    rows = [list(range(*window)) for window in MIXED]
    torch.testing.assert_close(output, target_attention_reference(query, keys, values, bias, rows))
    assert not output[:2].any()


@pytest.mark.parametrize("windows", [[], [(0, 0), (9, 9)]], ids=["no candidate", "all empty"])
def test_nothing_to_see(windows: Windows) -> None:
    given, bounds = draw(windows, heads=2, dim=3, width=5, keys=True, bias=True)
    for found in differentiate(given, bounds):
        assert not found.any()


def test_any_number_of_threads_gives_the_same_bits() -> None:
    windows = [(u * 200, u * 200 + 150 + c) for u in range(30) for c in range(0, 50, 7)]
    given, bounds = draw(windows, heads=4, dim=16, width=19, keys=False, bias=True, rows=6000)
    torch.set_num_threads(1)
    expected = differentiate(given, bounds)
    for threads in (2, 5):
        torch.set_num_threads(threads)
        for one, other in zip(differentiate(given, bounds), expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("window", [(0, 701), (-1, 5), (700, 800)])
def test_windows_outside_the_rows_are_an_error(window: tuple[int, int]) -> None:
    given, windows = draw([(0, 9), window], heads=2, dim=3, width=5, keys=False, bias=False)
    query, keys, values, bias = given
    with pytest.raises(IndexError, match="outside the 700 rows"):
        target_attention(query, keys, values, bias, windows=windows)


def test_a_later_maximum_replaces_an_earlier_one() -> None:
    # scores rise and fall by thousands from tile to tile
    rows = 1000
    keys = torch.linspace(-40, 40, rows).unsqueeze(1)
    values = torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))
    query = torch.tensor([[[100.0], [-100.0]], [[0.0], [1.0]]])
    windows = torch.tensor([(0, rows), (0, rows)])
    output = target_attention(query, keys, values, None, windows=windows)
    exact = target_attention(query.double(), keys.double(), values.double(), None, windows=windows)
    torch.testing.assert_close(output, exact.float(), rtol=1e-4, atol=1e-5)


def test_numbers_that_are_none_stay_with_their_candidate() -> None:
    given, windows = draw([(0, 600)] * 5, heads=4, dim=16, width=16, keys=False, bias=False)
    query, _, values, _ = given
    query[3] = torch.nan
    output = target_attention(query, None, values, None, windows=windows)
    assert bool(output[3].isnan().all())
    assert bool(output[:3].isfinite().all() and output[4:].isfinite().all())


def test_float32_windows_never_take_the_path_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def take(path: str) -> Callable[..., Any]:
        original = getattr(blocked, path)

        def run(*inputs: Any) -> Any:
            taken.append(path)
            return original(*inputs)

        return run

    for path in ("forward", "backward"):
        monkeypatch.setattr(blocked, path, take(path))
    given, windows = draw(MIXED, heads=2, dim=4, width=4, keys=False, bias=True)
    differentiate(given, windows)
    assert taken == []
    # the same with what compiled code does not take, to see that it would be noticed
    query, _, values, bias = given
    assert bias is not None
    differentiate((query.double(), None, values.double(), bias.double()), windows)
    assert taken == ["forward", "backward"]
