"""Tensors that say that they are on a GPU, on a machine without one.

Their values are on the CPU, where everything is computed. But the dispatcher, autograd and autocast
take them for tensors of CUDA; what a GPU would refuse is refused (operands on two devices, a CPU's
generator, memory read by numpy), and what makes the host wait for the GPU is counted. Kernels for
GPUs do not run: of the ops of this project, what registers for compilers is compared instead.

`cuda_stub.cpp` must be loaded first.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
PROJECT = ("ranker", "ranker_data", "ranker_kernels")

_aten = torch.ops.aten
_COPY = _aten.copy_.default
_TO = _aten._to_copy.default
# their indices may be on the host, from where they are copied
_INDEXED = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)
# the host has to know how many there are
_SIZED_BY_DATA = (
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten.unique_dim.default,
    _aten.unique_consecutive.default,
    _aten.bincount.default,
    _aten.multinomial.default,
    _aten.equal.default,
)


class OnGpu(Tensor):
    """A tensor that says that it is on the GPU; its values are those of `on_cpu`."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> "OnGpu":
        made = Tensor._make_wrapper_subclass(
            cls,
            on_cpu.shape,
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device=CUDA,
        )
        made.on_cpu = on_cpu
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError(f"{function} outside of pretended_cuda()")

    def tolist(self) -> Any:
        # of a subclass torch has none
        return self.cpu().tolist()


class PretendedCuda(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes with tensors on the pretended GPU.

    Attributes:
        waits: how often the host had to wait for the GPU, by the line of the project that made it.
        operands: of each op of this project that was called there, the dtypes of its first input.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: Counter[str] = Counter()
        self.operands: dict[str, set[str]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        ours = {id(leaf.on_cpu): leaf for leaf in leaves if isinstance(leaf, OnGpu)}
        if ours:
            _check_operands(function, args, leaves)
        reason = _reason_to_wait(function, args, kwargs, bool(ours))
        if reason:
            self.count(reason)
        made = function(*tree_map(_to_cpu, args), **tree_map(_to_cpu, kwargs))
        if function is _COPY:
            return args[0]
        wanted = kwargs.get("device")
        if not (ours if wanted is None else torch.device(wanted).type == "cuda"):
            return made
        made = tree_map(lambda leaf: _to_gpu(leaf, ours), made)
        if function.namespace == "ranker_kernels":
            dtypes = self.operands.setdefault(function._opname, set())
            dtypes.add(str(args[0].dtype))
            _check_fake(function, args, kwargs, made)
        return made

    def count(self, reason: str) -> None:
        """Counts one wait, of the line that is running."""
        self.waits[f"{_running_line(sys._getframe(1))}: {reason}"] += 1


def _to_cpu(leaf: Any) -> Any:
    if isinstance(leaf, OnGpu):
        return leaf.on_cpu
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


def _to_gpu(leaf: Any, ours: Mapping[int, OnGpu]) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    # what was changed in place stays the tensor that it was
    return ours[id(leaf)] if id(leaf) in ours else OnGpu(leaf)


def _check_operands(function: Any, args: Sequence[Any], leaves: Sequence[Any]) -> None:
    """Refuses what a GPU would refuse."""
    if any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{function}: expected a generator of the GPU, got one of the CPU")
    if function in (_COPY, _TO):
        return
    others = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, OnGpu)]
    if function in _INDEXED and isinstance(args[0], OnGpu):
        others = [x for x in args[2:3] if not isinstance(x, OnGpu)]
    writes_to_cpu = function._schema.is_mutable and not isinstance(args[0], OnGpu)
    takes_scalars = torch.Tag.pointwise in function.tags or function in (
        *_INDEXED,
        _aten.fill_.Tensor,
    )
    if takes_scalars and not writes_to_cpu:
        others = [x for x in others if x.dim() > 0]
    if others:
        raise RuntimeError(
            f"{function}: expected all tensors to be on the same device, but there is one of "
            f"shape {list(others[0].shape)} on the CPU beside those on {CUDA}"
        )


def _reason_to_wait(
    function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], on_gpu: bool
) -> str | None:
    if function is _TO:
        target = kwargs.get("device")
        if target is None or kwargs.get("non_blocking"):
            return None
        to_gpu = torch.device(target).type == "cuda"
        return None if to_gpu == on_gpu else f"a copy to {target}"
    if not on_gpu:
        return None
    if function is _COPY:
        blocks = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        crosses = isinstance(args[0], OnGpu) != isinstance(args[1], OnGpu)
        return "a copy between host and GPU" if blocks and crosses else None
    if function is _aten._local_scalar_dense.default:
        return "a value is read"
    if function in _SIZED_BY_DATA:
        return f"{function} has a size that depends on data"
    if function is _aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
        return "repeat_interleave has no output_size"
    if function in _INDEXED:
        indices = [index for index in args[1] if index is not None]
        if any(not isinstance(index, OnGpu) for index in indices):
            return "an index comes from the host"
        # where a mask takes one value, there is nothing to count
        if indices[0].dtype == torch.bool and not (len(args) > 2 and args[2].dim() == 0):
            return "an index is a mask"
    return None


def _running_line(frame: FrameType | None) -> str:
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.split(".")[0] in PROJECT:
            return f"{module}:{frame.f_lineno}"
        frame = frame.f_back
    return "the backward"


def _check_fake(function: Any, args: Any, kwargs: Any, made: Any) -> None:
    """Compares what an op registers for compilers with what it does."""
    with _disable_current_modes(), FakeTensorMode() as mode:

        def fake(leaf: Any) -> Any:
            if isinstance(leaf, OnGpu):
                return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=CUDA)
            return mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf

        expected = function(*tree_map(fake, args), **tree_map(fake, kwargs))
    pairs = zip(tree_leaves(made), tree_leaves(expected), strict=True)
    for one, other in (map(_describe, pair) for pair in pairs if isinstance(pair[0], Tensor)):
        if one != other:
            raise RuntimeError(f"{function} makes {one}, for compilers {other}")


def _describe(tensor: Tensor) -> tuple[Any, ...]:
    strides = tensor.stride() if tensor.numel() else None
    return tuple(tensor.shape), strides, tensor.dtype, tensor.device


@contextmanager
def pretended_cuda() -> Iterator[PretendedCuda]:
    """While it is open, `torch.device("cuda", 0)` is there."""
    mode = PretendedCuda()

    class Stream:
        def synchronize(self) -> None:
            mode.count("a stream is waited for")

    with (
        mock.patch.multiple(
            "torch.cuda",
            _lazy_init=lambda: None,
            is_available=lambda: True,
            is_bf16_supported=lambda: True,
            manual_seed=lambda seed: None,
            current_stream=lambda device: Stream(),
        ),
        mock.patch("torch._VF.gru", _gru),
        mode,
    ):
        # torch.tensor(numbers, device=...) is made on the CPU and copied, which can be seen
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            yield mode
        finally:
            torch._C._set_only_lift_cpu_tensors(False)


def _gru(
    inputs: Tensor, state: Tensor, weights: Sequence[Tensor], *_: object
) -> tuple[Tensor, Tensor]:
    """One layer from left to right, its batch first: torch's own is a kernel of cuDNN."""
    by_input, by_state, bias, state_bias = weights
    entering = nn.functional.linear(inputs, by_input, bias)
    states = [state[0]]
    for step in range(inputs.shape[1]):
        new = entering[:, step].chunk(3, -1)
        old = nn.functional.linear(states[-1], by_state, state_bias).chunk(3, -1)
        reset, keep = torch.sigmoid(new[0] + old[0]), torch.sigmoid(new[1] + old[1])
        candidate = torch.tanh(new[2] + reset * old[2])
        states.append((states[-1] - candidate) * keep + candidate)
    return torch.stack(states[1:], 1), states[-1].unsqueeze(0)


def move_to_gpu(module: nn.Module) -> None:
    """Moves parameters and buffers, and nothing else, as `module.to(device)` does."""
    moved: dict[int, Tensor] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                there = moved.setdefault(id(parameter), nn.Parameter(OnGpu(parameter.detach())))
                part._parameters[name] = cast(nn.Parameter, there)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = moved.setdefault(id(buffer), OnGpu(buffer))
