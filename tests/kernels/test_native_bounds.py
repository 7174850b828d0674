"""Compiled code reads nothing behind its inputs: memory ends there, or this process does."""

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker_kernels import embedding_rows, numbering
from ranker_kernels import linear as linear_module
from ranker_kernels.din_attention import ActivationUnit, din_attention
from ranker_kernels.embedding_rows import Keys
from ranker_kernels.linear import linear
from ranker_kernels.search_topk import DistinctRows, search_topk
from ranker_kernels.target_attention import target_attention

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="protects pages as Linux does")

# from tensors to tensors; every op here is compiled code
Op = Callable[..., list[Tensor]]


def wall_in(tensor: Tensor) -> Tensor:
    """Copies a tensor to where memory that nobody may touch begins behind it."""
    num_bytes = tensor.numel() * tensor.element_size()
    room = -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, room + mmap.PAGESIZE)
    wall = ctypes.addressof(ctypes.c_char.from_buffer(pages)) + room
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    # 0: neither read nor written
    assert protect(ctypes.c_void_p(wall), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    whole = torch.frombuffer(pages, dtype=torch.uint8)[room - num_bytes : room]
    copy = whole.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
    return copy.requires_grad_(tensor.requires_grad)


def differentiate(output: Tensor, *leaves: Tensor) -> list[Tensor]:
    return [output.detach(), *torch.autograd.grad(output.square().sum(), leaves)]


def run_linear(rows: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    return differentiate(linear(rows, weight, bias), rows, weight, bias)


def run_din(
    query: Tensor, behaviors: Tensor, windows: Tensor, weight: Tensor, bias: Tensor, score: Tensor
) -> list[Tensor]:
    unit = ActivationUnit(
        activation="sigmoid", weights=(weight, score), biases=(bias, torch.zeros(1))
    )
    output, _ = din_attention(query, behaviors, windows, unit, normalize="softmax")
    return differentiate(output, query, behaviors, weight, bias, score)


def run_target(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, seen: Tensor, *, by: str
) -> list[Tensor]:
    output = target_attention(query, keys, values, bias, **{by: seen})
    return differentiate(output, query, keys, values, bias)


def run_search(
    query: Tensor, keys: Tensor, few: Tensor, rows: Tensor, bias: Tensor, windows: Tensor
) -> list[Tensor]:
    return [search_topk(query, DistinctRows((keys, few), (None, rows)), bias, windows, k=9)]


def run_rows(table: Tensor, squares: Tensor, ids: Tensor, gradients: Tensor) -> list[Tensor]:
    library = embedding_rows.find_library()
    assert library is not None
    keys = Keys(begins=[0], ends=[len(ids)], first_rows=[0], sizes=[len(table)])
    assert embedding_rows.are_in_bounds(library, ids, keys)
    embedding_rows.update_rowwise_adagrad(
        *(library, table, squares, ids, keys, [gradients]), lr=0.1, eps=0.1
    )
    return [table, squares, *embedding_rows.gather_rows(library, table, ids, keys)]


def run_numbering(ids: Tensor, flags: Tensor) -> list[Tensor]:
    return [*numbering.distinct(ids), *numbering.number_flags(flags)]


def draw_inputs(op: str, width: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(width)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    def choose(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    windows = torch.tensor([[0, 90], [5, 90], [83, 90], [90, 90], [0, 0]])
    outputs = width + 3
    if op == "linear":
        return draw(5, width), draw(outputs, width), draw(outputs)
    if op == "din":
        unit = draw(outputs, 4 * width), draw(outputs), draw(1, outputs)
        return draw(5, width), draw(90, width), windows, *unit
    if op.startswith("target"):
        seen = windows if op == "target by windows" else choose(90, 5, width)
        return draw(5, 3, width), draw(90, width), draw(90, outputs), draw(90, 3), seen
    if op == "search":
        keys = draw(90, width), draw(4, 2), choose(4, 90)
        return draw(5, 3, width + 2), *keys, draw(90, 3), windows
    if op == "rows":
        gradients = draw(99, width).detach()
        return draw(50, width).detach(), torch.rand(50), choose(50, 99), gradients
    return choose(300, 10 * width), choose(2, 10 * width).bool()


OPS: dict[str, Op] = {
    "linear": run_linear,
    "din": run_din,
    "target by windows": functools.partial(run_target, by="windows"),
    "target by index": functools.partial(run_target, by="index"),
    "search": run_search,
    "rows": run_rows,
    "numbering": run_numbering,
}


@pytest.mark.parametrize("width", [1, 7, 16, 20])
@pytest.mark.parametrize("op", OPS)
def test_nothing_is_read_behind_what_is_given(
    op: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_LEAST_OUTPUTS", "_LEAST_PRODUCTS"):
        monkeypatch.setattr(linear_module, name, 1)
    monkeypatch.setattr(linear_module, "is_faster_here", lambda: True)
    inputs = draw_inputs(op, width)
    walled = OPS[op](*map(wall_in, inputs))
    for found, expected in zip(walled, OPS[op](*inputs), strict=True):
        assert torch.equal(found, expected)
