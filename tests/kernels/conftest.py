"""Fixtures of the kernels' tests.

Without a GPU, Triton's interpreter runs the kernels on CPU; with one, the same tests run them
there. TRITON_INTERPRET=1 asks for the interpreter in spite of a GPU.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

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
    """Refuses arguments that a kernel does not have, as a GPU would; the interpreter drops them."""
    from triton.runtime.interpreter import GridExecutor

    execute = GridExecutor.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        unknown = kwargs.keys() - {*self.arg_names, "num_warps", "num_stages"}
        assert not unknown, f"{self.fn.__name__} has no {unknown}"
        return execute(self, *args, **kwargs)

    monkeypatch.setattr(GridExecutor, "__call__", call)


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
