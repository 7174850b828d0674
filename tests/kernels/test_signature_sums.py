"""SDIM's interest: in PyTorch, and by the Triton kernels in the interpreter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker_kernels.signature_sums import grouped, launch, op, signature_sums, signatures
from ranker_kernels.signature_sums.reference import signature_sums_reference, signatures_reference

# nobody looks at the last behaviours; 5 signatures of 2 bits
NUM_BEHAVIORS, SEEN, DIM, NUM_HASHES, BITS = 70, 62, 12, 10, 2
WINDOWS = {
    "overlapping": [(0, 60), (3, 41), (61, 61), (4, 42), (5, 6), (61, 62)],
    # more candidates than there are codes
    "shared": [(5, 50)] * 6 + [(0, 0), (7, 50)],
    "all empty": [(0, 0), (60, 60)],
    "none": [],
}

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture
def device(
    backend: str, monkeypatch: pytest.MonkeyPatch, replace_kernels: Callable[..., None]
) -> str:
    monkeypatch.setattr(grouped, "MAX_BEHAVIORS", 40)
    monkeypatch.setattr(launch, "PIECE", 32)
    monkeypatch.setattr(launch, "ROWS", 16)
    if backend == "interpreter":
        replace_kernels(
            signature_sums=op.pool_with_triton,
            signature_sums_backward=op.differentiate_with_triton,
        )
    return "cuda" if backend == "cuda" else "cpu"


def make_inputs(windows: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2026)
    behaviors = torch.randn(NUM_BEHAVIORS, DIM, generator=generator)
    query = torch.randn(len(windows), DIM, generator=generator)
    directions = torch.randn(DIM, NUM_HASHES, generator=generator)
    spans = torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)
    codes, wanted = (signatures(rows, directions, BITS) for rows in (behaviors, query))
    return behaviors, codes, wanted, spans


def differentiate(
    function: Callable[..., Tensor], behaviors: Tensor, *rest: Tensor, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    behaviors = behaviors.to(device).clone().requires_grad_()
    output = function(behaviors, *(x.to(device) for x in rest))
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(7))
    (gradient,) = torch.autograd.grad(
        output, behaviors, upstream.to(output), allow_unused=True, materialize_grads=True
    )
    return output.detach().cpu(), gradient.cpu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", WINDOWS)
def test_values_and_gradient(name: str, dtype: torch.dtype, device: str) -> None:
    behaviors, *rest = make_inputs(WINDOWS[name])
    behaviors = behaviors.to(dtype)
    expected = differentiate(signature_sums_reference, behaviors.double(), *rest)
    usual = differentiate(signature_sums_reference, behaviors, *rest)
    behaviors[SEEN:] = torch.nan
    actual = differentiate(signature_sums, behaviors, *rest, device=device)
    for found, plain, wanted in zip(actual, usual, expected, strict=True):
        assert found.dtype == dtype
        error = (found.double() - wanted).norm().item()
        least = torch.finfo(dtype).eps * wanted.norm().item()
        assert error <= 2 * max((plain.double() - wanted).norm().item(), least)


def test_the_op_keeps_its_promises_and_compiles(device: str) -> None:
    behaviors, *rest = (x.to(device) for x in make_inputs([(0, 9), (4, 30)]))
    leaf = behaviors.clone().requires_grad_()
    torch.library.opcheck(torch.ops.ranker_kernels.signature_sums.default, (leaf, *rest))
    compiled = torch.compile(signature_sums, fullgraph=True, backend="aot_eager")
    for found, wanted in zip(
        differentiate(compiled, behaviors, *rest, device=device),
        differentiate(signature_sums, behaviors, *rest, device=device),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_behaviors_that_cancel_have_no_direction_and_no_gradient(device: str) -> None:
    one = torch.randn(1, DIM)
    codes = torch.zeros(2, 1, dtype=torch.uint8)
    output, gradient = differentiate(
        signature_sums,
        torch.cat([one, -one]),
        *(codes, codes[:1], torch.tensor([[0, 2]])),
        device=device,
    )
    assert torch.equal(output, torch.zeros(1, DIM))
    assert torch.equal(gradient, torch.zeros(2, DIM))


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_signatures_match_the_reference(bits: int) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(9, 5, generator=generator)
    directions = torch.randn(5, 2 * bits, generator=generator)
    assert torch.equal(
        signatures(rows, directions, bits), signatures_reference(rows, directions, bits)
    )
    assert signatures(rows[:0], directions, bits).shape == (0, 2)


def test_shapes_are_checked() -> None:
    behaviors, codes, wanted, windows = make_inputs([(0, 9), (4, 30)])
    with pytest.raises(
        ValueError, match="bits is 9; it must be 1 to 8 and divide the 9 directions"
    ):
        signatures(behaviors, torch.zeros(DIM, 9), 9)
    with pytest.raises(ValueError, match=r"wanted is torch.int64 \[2, 5\]"):
        signature_sums(behaviors, codes, wanted.long(), windows)
    with pytest.raises(ValueError, match="codes has 5 signatures and wanted 4"):
        signature_sums(behaviors, codes, wanted[:, :4], windows)
