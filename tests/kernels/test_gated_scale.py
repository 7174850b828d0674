"""The gated product: in PyTorch, and by the Triton kernels in the interpreter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker_kernels.gated_scale import gated_scale, launch, op
from ranker_kernels.gated_scale.reference import gated_scale_reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture
def device(
    backend: str, monkeypatch: pytest.MonkeyPatch, replace_kernels: Callable[..., None]
) -> str:
    # several programs in both directions
    monkeypatch.setattr(launch, "SIZE", 64)
    monkeypatch.setattr(launch, "MAX_COLUMNS", 16)
    if backend == "interpreter":
        replace_kernels(
            gated_scale=op.scale_with_triton, gated_scale_backward=op.differentiate_with_triton
        )
    return "cuda" if backend == "cuda" else "cpu"


def make_inputs(rows: int) -> tuple[Tensor, Tensor]:
    """Returns logits that are columns of a wider matrix, as a gate of several towers has them."""
    generator = torch.Generator().manual_seed(2026)
    logits = torch.randn(rows, 60, generator=generator) * 3
    return logits[:, 20:43], torch.randn(rows, 23, generator=generator)


def differentiate(
    function: Callable[[Tensor, Tensor, float], Tensor],
    logits: Tensor,
    hidden: Tensor,
    device: str = "cpu",
) -> list[Tensor]:
    given = (
        logits.detach().to(device).requires_grad_(),
        hidden.detach().to(device).requires_grad_(),
    )
    output = function(*given, 2.0)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(7))
    grads = torch.autograd.grad(output, given, upstream.to(output))
    return [x.detach().cpu() for x in (output, *grads)]


@pytest.mark.parametrize("rows", [0, 1, 11])
@pytest.mark.parametrize(
    ("gate_dtype", "dtype"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
    ],
    ids=["float32", "bfloat16", "mixed"],
)
def test_values_and_gradients(
    gate_dtype: torch.dtype, dtype: torch.dtype, rows: int, device: str
) -> None:
    logits, hidden = make_inputs(rows)
    logits, hidden = logits.to(gate_dtype), hidden.to(dtype)
    expected = differentiate(gated_scale_reference, logits.double(), hidden.double())
    usual = differentiate(gated_scale_reference, logits, hidden)
    for found, plain, wanted in zip(
        differentiate(gated_scale, logits, hidden, device), usual, expected, strict=True
    ):
        assert found.dtype == plain.dtype
        error = (found.double() - wanted).norm().item()
        least = torch.finfo(found.dtype).eps * wanted.norm().item()
        assert error <= 2 * max((plain.double() - wanted).norm().item(), least)


def test_the_op_keeps_its_promises_and_compiles(device: str) -> None:
    logits, hidden = make_inputs(3)
    leaves = [x.to(device).requires_grad_() for x in (logits, hidden)]
    torch.library.opcheck(torch.ops.ranker_kernels.gated_scale.default, (*leaves, 2.0))
    compiled = torch.compile(gated_scale, fullgraph=True, backend="aot_eager")
    for found, wanted in zip(
        differentiate(compiled, logits, hidden, device),
        differentiate(gated_scale, logits, hidden, device),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"logits is \[2, 3\] and hidden \[2, 4\]"):
        gated_scale(torch.zeros(2, 3), torch.zeros(2, 4), 2.0)
