"""The compiled path of `target_attention` to selected rows: sizes, repeats, threads, accuracy."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ranker_kernels.native import SWITCH
from ranker_kernels.target_attention import target_attention
from ranker_kernels.target_attention.compiled import find_library
from ranker_kernels.target_attention.reference import target_attention_reference

Inputs = tuple[Tensor, Tensor | None, Tensor, Tensor | None]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    assert find_library(torch.zeros(1, 1, 1), selects=True) is not None, (
        "these tests need a C++ compiler"
    )
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(
    *,
    heads: int,
    dim: int,
    width: int,
    keys: bool,
    bias: bool,
    candidates: int = 70,
    picks: int = 9,
) -> tuple[Inputs, Tensor]:
    """Draws inputs; rows are picked by several candidates, and some picks are none."""
    generator = torch.Generator().manual_seed(100 * heads + dim)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    rows = 200
    index = torch.rand(candidates, rows, generator=generator).argsort(dim=1)[:, :picks]
    index = torch.where(torch.rand(index.shape, generator=generator) < 0.2, -1, index)
    if candidates:
        index[0] = -1
    inputs = (
        numbers(candidates, heads, dim),
        numbers(rows, dim) if keys else None,
        numbers(rows, width),
        numbers(rows, heads) if bias else None,
    )
    return inputs, index


def differentiate(inputs: Inputs, index: Tensor) -> list[Tensor]:
    """Returns the output and every gradient."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs]
    query, keys, values, bias = leaves
    assert query is not None
    assert values is not None
    output = target_attention(query, keys, values, bias, index=index)
    generator = torch.Generator().manual_seed(9)
    upstream = torch.randn(output.shape, generator=generator).to(output.dtype)
    given = [leaf for leaf in leaves if leaf is not None]
    return [output.detach(), *torch.autograd.grad(output, given, upstream)]


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("heads", "dim", "width"), [(1, 1, 1), (4, 32, 35), (3, 7, 20), (17, 16, 16), (2, 40, 64)]
)
def test_it_errs_no_more_than_pytorch(
    heads: int, dim: int, width: int, keys: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, index = draw(heads=heads, dim=dim, width=width, keys=keys, bias=bias)
    double = tuple(None if t is None else t.double() for t in inputs)
    exact = differentiate(double, index)  # type: ignore[arg-type]
    compiled = differentiate(inputs, index)
    monkeypatch.setenv(SWITCH, "0")
    for mine, plain, true in zip(compiled, differentiate(inputs, index), exact, strict=True):
        scale = true.norm().clamp_min(1e-6)
        error, allowed = ((x.double() - true).norm() / scale for x in (mine, plain))
        assert error <= 2 * allowed + 1e-7


def test_it_matches_the_formula() -> None:
    (query, keys, values, bias), index = draw(heads=4, dim=8, width=12, keys=True, bias=True)
    assert keys is not None
    output = target_attention(query, keys, values, bias, index=index)
    rows = [[i for i in row if i >= 0] for row in index.tolist()]
    torch.testing.assert_close(output, target_attention_reference(query, keys, values, bias, rows))
    assert not output[0].any()


def test_an_index_outside_the_rows_is_an_error() -> None:
    (query, keys, values, bias), index = draw(heads=4, dim=8, width=12, keys=True, bias=True)
    index[3, 2] = 200
    with pytest.raises(IndexError, match="outside the 200 rows"):
        target_attention(query, keys, values, bias, index=index)
    with pytest.raises(ValueError, match=r"index is torch\.int32"):
        target_attention(query, keys, values, bias, index=index.int())


@pytest.mark.parametrize("candidates", [0, 1, 600])
def test_any_number_of_threads_gives_the_same_bits(candidates: int) -> None:
    inputs, index = draw(
        heads=4, dim=16, width=19, keys=False, bias=True, candidates=candidates, picks=40
    )
    torch.set_num_threads(1)
    expected = differentiate(inputs, index)
    for threads in (2, 5):
        torch.set_num_threads(threads)
        for one, other in zip(differentiate(inputs, index), expected, strict=True):
            assert torch.equal(one, other)


def test_large_scores_and_numbers_that_are_none() -> None:
    (query, _, values, _), index = draw(heads=4, dim=16, width=16, keys=False, bias=False)
    output = target_attention(query * 1e4, None, values, None, index=index)
    assert bool(output.isfinite().all())
    query[3] = torch.nan
    output = target_attention(query, None, values, None, index=index)
    assert bool(output[3].isnan().all())
    assert bool(output[:3].isfinite().all() and output[4:].isfinite().all())
