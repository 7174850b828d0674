"""What the ops do on a GPU besides their kernels: hardly anything, and nothing that waits for it.

The interpreter runs the very launch code. Every operation on tensors that is not a view or an
allocation is a launch of its own on a GPU.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ranker_kernels.din_attention import (
    ActivationUnit,
    Moments,
    Normalize,
    batch_moments,
    din_attention,
)
from ranker_kernels.din_attention import launch as din
from ranker_kernels.din_attention import op as din_op
from ranker_kernels.target_attention import launch as target
from ranker_kernels.target_attention import op as target_op
from ranker_kernels.target_attention import target_attention

WINDOWS = [(0, 9), (4, 20), (20, 20), (22, 30)]
DIM, NUM_BEHAVIORS = 8, 34


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is launched, in its order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launched: list[str] = []
        self.inside = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        views = any(result.alias_info for result in func._schema.returns)
        name = func._schema.name.removeprefix("aten::")
        if not self.inside and not views and not name.startswith(("empty", "new_empty")):
            self.launched.append(name)
        return func(*args, **(kwargs or {}))

    def note(self, kernel: str, run: Callable[[], Any]) -> Any:
        """Runs an interpreted kernel, whose own operations do not count."""
        self.launched.append(kernel)
        self.inside = True
        try:
            return run()
        finally:
            self.inside = False


@pytest.fixture
def record(
    monkeypatch: pytest.MonkeyPatch, triton_device: str
) -> Callable[[Callable[[], Any]], tuple[Any, list[str]]]:
    """Runs a function and returns its result and what it launched."""
    if triton_device != "cpu":
        pytest.skip("counts in the interpreter")
    from triton.runtime.interpreter import GridExecutor

    execute = GridExecutor.__call__
    recorders: list[Recorder] = []

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return recorders[-1].note(self.fn.__name__, lambda: execute(self, *args, **kwargs))

    def run(function: Callable[[], Any]) -> tuple[Any, list[str]]:
        recorders.append(Recorder())
        with recorders[-1]:
            result = function()
        return result, recorders[-1].launched

    monkeypatch.setattr(GridExecutor, "__call__", call)
    return run


def make_din_inputs(device: str) -> tuple[Tensor, Tensor, Tensor, ActivationUnit]:
    def draw(*shape: int) -> Tensor:
        return (0.3 * torch.randn(shape, device=device)).bfloat16()

    return (
        *(draw(len(WINDOWS), DIM), draw(NUM_BEHAVIORS, DIM)),
        torch.tensor(WINDOWS, device=device),
        ActivationUnit(
            activation="dice",
            weights=(draw(20, 4 * DIM), draw(9, 20), draw(1, 9)),
            biases=(draw(20), draw(9), draw(1)),
            alphas=(draw(20), draw(9)),
            moments=tuple(Moments(draw(n), 1 + draw(n).square()) for n in (20, 9)),
        ),
    )


@pytest.mark.parametrize("normalize", ["softmax", "none"])
def test_din_attention(normalize: Normalize, record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = din.Launch(programs=2, tiles=din.Tiles(16, 16, plan=4))
    monkeypatch.setattr(din, "choose_launch", lambda *_: small)
    query, behaviors, windows, unit = make_din_inputs("cpu")
    inputs = (
        *(query, behaviors, windows, unit.weights, unit.biases, unit.alphas),
        *([part.mean for part in unit.moments], [part.variance for part in unit.moments]),
        *(unit.activation, normalize),
    )
    (output, terms), launched = record(lambda: din_op.attend_with_triton(*inputs))
    assert launched == ["prepare", "forward"]
    _, launched = record(lambda: din_op.differentiate_with_triton(output, output, terms, *inputs))
    assert launched == [
        *("sort", "prepare", "backward_pairs", "backward_keys", "backward_first_layer"),
        "add_sums",
    ]


@pytest.mark.parametrize("depth", [1, 2])
def test_din_moments(depth: int, record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = din.Launch(programs=2, tiles=din.Tiles(16, 16, plan=4))
    monkeypatch.setattr(din, "choose_launch", lambda *_: small)
    query, behaviors, windows, unit = make_din_inputs("cpu")
    given = unit.moments[: depth - 1]
    inputs: tuple[Any, ...] = (
        *(query, behaviors, windows, unit.weights[:depth], unit.biases[:depth]),
        *(unit.alphas[: depth - 1], [part.mean for part in given]),
        [part.variance for part in given],
    )
    moments, launched = record(lambda: batch_moments.find_with_triton(*inputs))
    assert launched == ["prepare", "forward_moments", "merge_moments"]
    _, launched = record(
        lambda: batch_moments.differentiate_with_triton(*moments, moments[0], *inputs)
    )
    assert launched == [
        *("sort", "prepare", "backward_pairs", "backward_keys", "backward_first_layer"),
        "add_sums",
    ]


@pytest.mark.parametrize("repeats", [False, True])
def test_target_attention_to_selections(
    repeats: bool, record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "choose_tiles", lambda *_: target.Tiles(16, 16, piece=32))
    query, values = torch.randn(3, 4, DIM).bfloat16(), torch.randn(NUM_BEHAVIORS, DIM).bfloat16()
    index = torch.arange(30).view(3, 10) % (7 if repeats else 30)
    inputs = (query, None, values, None, None, index)
    (output, normalizer), launched = record(lambda: target_op.attend_with_triton(*inputs))
    assert launched == ["forward"]
    _, launched = record(
        lambda: target_op.differentiate_with_triton(output, output, normalizer, *inputs)
    )
    assert launched == [
        *("new_zeros", "count_selections", "cumsum", "backward_query"),
        *("order_selections", "merge_selections"),
    ]


def test_target_attention_to_windows(record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = target.Tiles(16, 16, piece=16, pieces=4, plan=4)
    monkeypatch.setattr(target, "choose_tiles", lambda *_: tiles)
    query, values = torch.randn(4, 4, DIM).bfloat16(), torch.randn(NUM_BEHAVIORS, DIM).bfloat16()
    inputs = (query, None, values, None, torch.tensor(WINDOWS), None)
    (output, normalizer), launched = record(lambda: target_op.attend_with_triton(*inputs))
    assert launched == ["sort", "group_windows", "zeros", "zeros", "forward", "combine"]
    _, launched = record(
        lambda: target_op.differentiate_with_triton(output, output, normalizer, *inputs)
    )
    assert launched == [
        *("sort", "group_windows", "zeros", "backward_query", "combine"),
        *("locate_groups", "backward_rows"),
    ]


@pytest.mark.gpu
# PyTorch says that it may miss some
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("op", ["din_attention", "din_moments", "selections", "windows"])
def test_nothing_waits_for_a_gpu(op: str, cuda: str) -> None:
    query, behaviors, windows, unit = make_din_inputs(cuda)
    leaves = (query.requires_grad_(), behaviors.requires_grad_())
    index = torch.randint(0, NUM_BEHAVIORS, (len(WINDOWS), 10), device=cuda)

    def run() -> tuple[torch.Tensor, ...]:
        if op == "din_attention":
            output = din_attention(*leaves, windows, unit)[0]
        elif op == "din_moments":
            of_batch = dataclasses.replace(unit, moments=())
            output = din_attention(*leaves, windows, of_batch)[0]
        else:
            where = {"index": index} if op == "selections" else {"windows": windows}
            output = target_attention(query.unsqueeze(1), None, behaviors, None, **where)
        return torch.autograd.grad(output, leaves, torch.ones_like(output))

    expected = run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        # raises where anything waits
        found = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)
