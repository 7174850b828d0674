from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from ranker_kernels.din_attention import ActivationUnit, din_attention
from ranker_kernels.gated_scale import gated_scale
from ranker_kernels.ops import on_device_of_inputs


def test_a_gradient_of_a_gradient_is_refused() -> None:
    logits, hidden = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    (first,) = torch.autograd.grad(
        gated_scale(logits, hidden, 2.0).sum(), logits, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="gated_scale_backward has no backward"):
        first.sum().backward()  # type: ignore[no-untyped-call]


def test_of_an_op_that_returns_a_list_too() -> None:
    query, behaviors = torch.randn(2, 4, requires_grad=True), torch.randn(5, 4)
    unit = ActivationUnit(
        activation="sigmoid",
        weights=(torch.randn(3, 16), torch.randn(1, 3)),
        biases=(torch.zeros(3), torch.zeros(1)),
        alphas=(),
        moments=(),
    )
    output, _ = din_attention(query, behaviors, torch.tensor([[0, 3], [3, 5]]), unit)
    (first,) = torch.autograd.grad(output.sum(), query, create_graph=True)
    with pytest.raises(NotImplementedError, match="din_attention_backward has no backward"):
        first.sum().backward()  # type: ignore[no-untyped-call]


def test_kernels_are_launched_where_their_inputs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[Tensor] = []

    @contextmanager
    def device_of(tensor: Tensor) -> Iterator[None]:
        current.append(tensor)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    query, seen = torch.zeros(2), []

    @on_device_of_inputs
    def launch(first: Tensor, second: int) -> int:
        seen.extend(current)
        return second

    assert launch(query, 3) == 3
    assert seen[0] is query
    assert not current


@pytest.mark.gpu
def test_another_gpu_than_the_current_one(cuda: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    logits, hidden = torch.randn(2, 40, 8, device=f"{cuda}:1")
    expected = 2 * torch.sigmoid(logits) * hidden
    torch.testing.assert_close(gated_scale(logits, hidden, 2.0), expected)
