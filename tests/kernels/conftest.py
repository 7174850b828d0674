"""Fixtures of the kernels' tests.

Without a GPU, Triton's interpreter runs the kernels on CPU; with one, the same tests run them
there. TRITON_INTERPRET=1 asks for the interpreter in spite of a GPU.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

# PyTorch refuses products on a GPU without it where algorithms are to be deterministic, which is
# what poisons memory below
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Triton reads it when a kernel is defined, that is when its module is imported
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")
needs_cuda = pytest.mark.skipif(
    INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device, not interpreted"
)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fills every tensor that is allocated without values with NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=needs_interpreter, id="interpreter"),
        pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda]),
    ]
)
def triton_device(request: pytest.FixtureRequest) -> str:
    """The device whose tensors the Triton kernels take here."""
    return str(request.param)


@pytest.fixture
def cuda() -> str:
    """A GPU whose kernels are not interpreted."""
    if INTERPRETED or not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, not interpreted")
    return "cuda"


@pytest.fixture(autouse=INTERPRETED)
def strict_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses arguments that a kernel does not have, as a GPU would; the interpreter drops them.

    Programs run one after the other, the last first: what one of them waits for, the first usually
    makes, and a GPU knows no order.
    """
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

    execute, choose = GridExecutor.__call__, InterpreterBuilder.set_grid_idx

    def choose_backwards(self: Any, *program: int) -> None:
        sides = zip(self.grid_dim, program, strict=True)
        choose(self, *(side - 1 - place for side, place in sides))

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        unknown = kwargs.keys() - {*self.arg_names, "num_warps", "num_stages"}
        assert not unknown, f"{self.fn.__name__} has no {unknown}"
        return execute(self, *args, **kwargs)

    monkeypatch.setattr(GridExecutor, "__call__", call)
    monkeypatch.setattr(InterpreterBuilder, "set_grid_idx", choose_backwards)


class GuardedMemory:
    """Loads and stores for the interpreter, which refuse what lies outside a launch's tensors."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory
        self.begins = self.ends = np.zeros(0, np.int64)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    def guard(self, arguments: Iterable[Any]) -> None:
        """Notes where the tensors among a launch's arguments lie."""
        spans = []
        for tensor in arguments:
            if isinstance(tensor, Tensor) and tensor.numel():
                sides = zip(tensor.shape, tensor.stride(), strict=True)
                last = sum((side - 1) * stride for side, stride in sides)
                begin = tensor.data_ptr()
                spans.append((begin, begin + (last + 1) * tensor.element_size()))
        spans.sort()
        # a tensor may be given twice, and a part of it; ends ascend
        self.begins = np.array([begin for begin, _ in spans], np.int64)
        self.ends = np.maximum.accumulate(np.array([end for _, end in spans], np.int64))

    def check(self, pointers: Any, mask: Any, size: int) -> None:
        """Raises if one of the pointers that are not masked is outside."""
        used = pointers[np.broadcast_to(mask, pointers.shape).astype(bool)].astype(np.int64)
        place = np.searchsorted(self.begins, used, side="right") - 1
        inside = (place >= 0) & (used + size <= self.ends[np.maximum(place, 0)])
        assert inside.all(), f"{(~inside).sum()} of {inside.size} pointers lie outside all tensors"

    def load(self, pointers: Any, mask: Any, other: Any, dtype: Any) -> Any:
        """Loads what is not masked."""
        self.check(pointers, mask, np.dtype(dtype).itemsize)
        return self.memory.load(pointers, mask, other, dtype)

    def store(self, pointers: Any, value: Any, mask: Any) -> Any:
        """Stores what is not masked."""
        self.check(pointers, mask, value.dtype.itemsize)
        return self.memory.store(pointers, value, mask)

    def atomic_rmw(self, operation: Any, pointers: Any, value: Any, mask: Any, order: Any) -> Any:
        """Changes what is not masked."""
        self.check(pointers, mask, value.dtype.itemsize)
        return self.memory.atomic_rmw(operation, pointers, value, mask, order)


@pytest.fixture(autouse=INTERPRETED)
def guarded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has kernels fail that read or write beside their tensors, masked values aside."""
    from triton.runtime import interpreter

    memory = GuardedMemory(interpreter._interpreter)
    execute = interpreter.GridExecutor.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        memory.guard([*args, *kwargs.values()])
        return execute(self, *args, **kwargs)

    monkeypatch.setattr(interpreter, "_interpreter", memory)
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", call)


@pytest.fixture
def replace_kernels() -> Iterator[Callable[..., None]]:
    """Lets ops on CPU run other functions, given by the ops' names: those of the GPU."""
    library = torch.library.Library("ranker_kernels", "IMPL")  # type: ignore[no-untyped-call]

    def replace(**kernels: Callable[..., Any]) -> None:
        for name, kernel in kernels.items():
            library.impl(name, kernel, "CPU")  # type: ignore[no-untyped-call]

    yield replace
    library._destroy()  # type: ignore[no-untyped-call]


@pytest.fixture(
    params=[
        "torch",
        pytest.param("interpreter", marks=needs_interpreter),
        pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda]),
    ]
)
def backend(request: pytest.FixtureRequest) -> str:
    """What runs an op: PyTorch on CPU, Triton's interpreter on CPU, or Triton on a GPU."""
    return str(request.param)
