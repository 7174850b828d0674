import ctypes
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from ranker_kernels import linear as module
from ranker_kernels.linear import linear

plain = nn.functional.linear

# rows, inputs, outputs: no multiples of anything; more terms and rows than a block; narrow ones
SHAPES = [
    (1, 1, 1),
    (3, 5, 2),
    (97, 129, 17),
    (200, 16, 16),
    (515, 33, 200),
    (64, 300, 90),
    (3000, 20, 40),
]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    """Compiled code for every size, on any processor."""
    library = module.find_library()
    assert library is not None
    monkeypatch.setattr(module, "is_faster_here", lambda: True)
    monkeypatch.setattr(module, "_LEAST_OUTPUTS", 1)
    monkeypatch.setattr(module, "_LEAST_PRODUCTS", 1)
    return library


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(rows: int, inputs: int, outputs: int) -> list[Tensor]:
    """Returns rows, weight, bias and an upstream gradient."""
    generator = torch.Generator().manual_seed(rows + inputs)
    shapes = ((rows, inputs), (outputs, inputs), (outputs,), (rows, outputs))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def run(function: Callable[..., Tensor], leaves: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """Returns the output and all gradients."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    output = function(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream.to(output.dtype))]


def is_compiled(output: Tensor) -> bool:
    return type(output.grad_fn).__name__ == "_LinearBackward"


@pytest.mark.usefixtures("compiled", "poisoned_memory")
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_errs_at_most_twice_as_much_as_pytorch(
    shape: tuple[int, int, int], has_bias: bool
) -> None:
    *leaves, upstream = draw(*shape)
    leaves = leaves if has_bias else leaves[:2]
    assert is_compiled(linear(*(leaf.requires_grad_() for leaf in leaves)))
    exact = run(plain, [leaf.double() for leaf in leaves], upstream)
    for value, theirs, truth in zip(
        run(linear, leaves, upstream), run(plain, leaves, upstream), exact, strict=True
    ):
        assert value.shape == truth.shape
        error, other = ((x - truth).abs().max() for x in (value, theirs))
        # a unit of the last place, where PyTorch happens to be exact
        assert error <= 2 * other + 1.2e-7 * truth.abs().max()


@pytest.mark.usefixtures("compiled")
def test_an_output_depends_on_its_own_row_alone() -> None:
    rows, weight, bias, _ = draw(300, 140, 40)
    together = linear(rows, weight, bias)
    alone = torch.cat([linear(row[None], weight, bias) for row in rows])
    assert torch.equal(together, alone)
    # NaN stays where it is
    rows[7, 3] = torch.nan
    broken = linear(rows, weight, bias)
    assert broken[7].isnan().all()
    assert torch.equal(broken[8:], together[8:])


@pytest.mark.usefixtures("compiled", "threads")
def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PRODUCTS_OF_A_THREAD", 1)
    *leaves, upstream = draw(515, 300, 200)
    results = []
    for threads in (1, 2, 5, 40):
        torch.set_num_threads(threads)
        results.append(run(linear, leaves, upstream))
    for result in results[1:]:
        for value, first in zip(result, results[0], strict=True):
            assert torch.equal(value, first)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, 3:60],
        lambda x: x[:1].expand(50, -1),
        lambda x: x.view(10, 2, 10, 70),
        lambda x: x.view(10, 20, 70)[:, :7],
        lambda x: x[:0],
    ],
    ids=["columns", "expanded", "4-D", "3-D slice", "no rows"],
)
def test_views_are_read_where_they_lie(view: Callable[[Tensor], Tensor]) -> None:
    base = draw(200, 70, 1)[0]
    width = view(base).shape[-1]
    _, weight, bias, _ = draw(1, width, 24)
    upstream = torch.randn(*view(base).shape[:-1], 24)

    def call(function: Callable[..., Tensor]) -> list[Tensor]:
        return run(lambda x, w, b: function(view(x), w, b), [base, weight, bias], upstream)

    for value, expected in zip(call(linear), call(plain), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("compiled")
def test_gradients_that_nobody_needs_are_not_computed() -> None:
    rows, weight, bias, upstream = draw(50, 20, 10)
    expected = run(plain, [rows, weight, bias], upstream)[1:]
    for index in range(3):
        leaves = [rows, weight, bias]
        leaves[index] = leaves[index].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(linear(*leaves), leaves[index], upstream)
        torch.testing.assert_close(gradient, expected[index], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("compiled")
def test_gradients_have_gradients() -> None:
    *leaves, _ = (tensor.requires_grad_() for tensor in draw(20, 12, 9))

    def penalty(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        loss = function(*leaves).square().mean()
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        squares = [gradient.square().sum() for gradient in gradients]
        return torch.autograd.grad(torch.stack(squares).sum(), leaves)

    for value, expected in zip(penalty(linear), penalty(plain), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("compiled")
def test_many_gradients_at_once() -> None:
    *leaves, _ = (tensor.requires_grad_() for tensor in draw(20, 12, 9))

    def jacobian(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        sums = function(*leaves).sum(0)
        return torch.autograd.grad(sums, leaves, torch.eye(9), is_grads_batched=True)

    for value, expected in zip(jacobian(linear), jacobian(plain), strict=True):
        torch.testing.assert_close(value, expected)


WATCHERS: dict[str, Callable[[Callable[..., Tensor], list[Tensor]], Any]] = {
    "vmap": lambda f, leaves: torch.func.vmap(lambda x: f(x[None], *leaves[1:]))(leaves[0]),
    "grad": lambda f, leaves: torch.func.grad(lambda x: f(x, *leaves[1:]).sum())(leaves[0]),
    "jvp": lambda f, leaves: torch.func.jvp(
        lambda x: f(x, *leaves[1:]), (leaves[0],), (leaves[0],)
    )[1],
    "make_fx": lambda f, leaves: make_fx(lambda x: f(x, *leaves[1:]))(leaves[0])(2 * leaves[0]),
    "compile": lambda f, leaves: torch.compile(f, backend="eager", fullgraph=True)(*leaves),
}


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("watcher", WATCHERS)
def test_who_watches_sees_the_op_of_pytorch(watcher: str) -> None:
    *leaves, _ = draw(20, 12, 9)
    value, expected = (WATCHERS[watcher](f, leaves) for f in (linear, plain))
    torch.testing.assert_close(value, expected)


@pytest.mark.usefixtures("compiled")
def test_operations_are_counted() -> None:
    *leaves, _ = (tensor.requires_grad_() for tensor in draw(20, 12, 9))
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(linear(*leaves).sum(), leaves)
    assert counter.get_total_flops() == 3 * 2 * 20 * 12 * 9


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_left_to_pytorch(dtype: torch.dtype) -> None:
    leaves = [tensor.to(dtype) for tensor in draw(20, 12, 9)[:3]]
    assert torch.equal(linear(*leaves), plain(*leaves))


@pytest.mark.usefixtures("compiled")
def test_numbers_that_do_not_lie_in_memory_as_they_are_read_are_left_to_pytorch() -> None:
    rows, weight, bias, upstream = draw(20, 12, 9)
    negated = torch._neg_view(rows)
    assert torch.equal(linear(negated, weight, bias), plain(negated, weight, bias))
    with warnings.catch_warnings():
        # PyTorch tells that it is new
        warnings.simplefilter("ignore")
        sparse = weight.to_sparse_csr()
    assert torch.equal(linear(rows, sparse, bias), plain(rows, sparse, bias))
    for value, expected in zip(
        run(linear, [rows, weight, bias], torch._neg_view(upstream)),
        run(plain, [rows, weight, bias], -upstream),
        strict=True,
    ):
        torch.testing.assert_close(value, expected)


@pytest.mark.usefixtures("compiled")
def test_autocast_is_left_to_pytorch() -> None:
    *leaves, _ = draw(20, 12, 9)
    with torch.autocast("cpu", torch.bfloat16):
        output = linear(*leaves)
        assert output.dtype == torch.bfloat16
        assert torch.equal(output, plain(*leaves))


@pytest.mark.usefixtures("compiled")
def test_shapes_that_do_not_fit_are_told_in_pytorchs_words() -> None:
    rows, weight, bias, _ = draw(20, 12, 9)
    for arguments in ((rows[:, 1:], weight, bias), (rows, weight, bias[1:])):
        with pytest.raises(RuntimeError, match=r"shapes|size"):
            linear(*arguments)


def test_small_layers_and_other_processors_are_left_to_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def covers(rows: int, inputs: int, outputs: int) -> bool:
        *leaves, _ = (tensor.requires_grad_() for tensor in draw(rows, inputs, outputs))
        return is_compiled(linear(*leaves))

    monkeypatch.setattr(module, "is_faster_here", lambda: True)
    assert covers(1024, 64, 8)
    assert not covers(1024, 64, 4)
    assert not covers(1000, 64, 8)
    monkeypatch.setattr(module, "is_faster_here", lambda: False)
    assert not covers(1024, 64, 8)


@pytest.mark.parametrize(
    ("capability", "processor", "expected"),
    [
        ("AVX512", "vendor_id : AuthenticAMD", True),
        ("AVX512", "vendor_id : GenuineIntel", False),
        ("AVX2", "vendor_id : AuthenticAMD", False),
    ],
)
def test_it_is_for_processors_whose_avx512_mkl_leaves_alone(
    capability: str, processor: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(module, "_read_processors", lambda: processor)
    assert module.is_faster_here.__wrapped__() == expected
