"""Sums over windows: in PyTorch, and by the Triton kernels in the interpreter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker_kernels.schedule import find_overlapping
from ranker_kernels.segment_sum import launch, op, segment_sum
from ranker_kernels.segment_sum.reference import segment_sum_reference

# nobody looks at the last rows
NUM_ROWS, SEEN, DIM = 70, 62, 12
WINDOWS = {
    "overlapping": [(0, 60), (3, 41), (61, 61), (4, 42), (5, 6), (61, 62), (4, 42)],
    "disjoint": [(0, 1), (1, 9), (9, 9), (9, 26), (30, 62)],
    "all empty": [(0, 0), (60, 60)],
    "none": [],
}

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture
def device(
    backend: str, monkeypatch: pytest.MonkeyPatch, replace_kernels: Callable[..., None]
) -> str:
    monkeypatch.setattr(launch, "PIECE", 32)
    if backend == "interpreter":
        replace_kernels(segment_sum=op.sum_with_triton, segment_sum_backward=op.spread_with_triton)
    return "cuda" if backend == "cuda" else "cpu"


def differentiate(
    function: Callable[[Tensor, Tensor], Tensor],
    values: Tensor,
    windows: Tensor,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    values = values.to(device).clone().requires_grad_()
    output = function(values, windows.to(device))
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(7))
    (gradient,) = torch.autograd.grad(output, values, upstream.to(output))
    return output.detach().cpu(), gradient.cpu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", WINDOWS)
def test_values_and_gradient(name: str, dtype: torch.dtype, device: str) -> None:
    windows = torch.tensor(WINDOWS[name], dtype=torch.int64).reshape(-1, 2)
    values = torch.randn(NUM_ROWS, DIM, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = differentiate(segment_sum_reference, values.double(), windows)
    usual = differentiate(segment_sum_reference, values, windows)
    values[SEEN:] = torch.nan
    actual = differentiate(segment_sum, values, windows, device)
    for found, plain, wanted in zip(actual, usual, expected, strict=True):
        assert found.dtype == dtype
        least = torch.finfo(dtype).eps * wanted.norm().item()
        error = (found.double() - wanted).norm().item()
        assert error <= 2 * max((plain.double() - wanted).norm().item(), least)


def test_the_op_keeps_its_promises_and_compiles(device: str) -> None:
    windows = torch.tensor([(0, 9), (4, 30)], device=device)
    values = torch.randn(40, 5, device=device).requires_grad_()
    torch.library.opcheck(torch.ops.ranker_kernels.segment_sum.default, (values, windows))
    compiled = torch.compile(segment_sum, fullgraph=True, backend="aot_eager")
    for found, wanted in zip(
        differentiate(compiled, values.detach(), windows, device),
        differentiate(segment_sum, values.detach(), windows, device),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_overlapping_ranges_of_each_tile() -> None:
    lows, highs = torch.tensor([0, 2, 3, 20]), torch.tensor([4, 12, 5, 30])
    first, last = find_overlapping(lows, highs, num_rows=28, tile=8)
    assert [list(range(*bounds)) for bounds in zip(first, last, strict=True)] == [
        [0, 1, 2],
        [1, 2],
        [3],
        [3],
    ]


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"values is \[3\]; it must be \[N, D\]"):
        segment_sum(torch.zeros(3), torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"windows is torch.float32 \[1, 2\]"):
        segment_sum(torch.zeros(3, 1), torch.zeros(1, 2))
