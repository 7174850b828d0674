"""How the ops of this package are known to PyTorch's dispatcher.

`torch.library.custom_op` does the same with more Python around every call: 0.12 ms more for an
attention of DIN and its backward, of 7 with 1,024 candidates and one thread.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

_LIBRARY = torch.library.Library("ranker_kernels", "FRAGMENT")  # type: ignore[no-untyped-call]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def on_device_of_inputs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the device of the first input the current one meanwhile: Triton launches there."""

    @functools.wraps(function)
    def call(*inputs: Any) -> Any:
        with torch.cuda.device_of(inputs[0]):  # type: ignore[no-untyped-call]
            return function(*inputs)

    return call


class Op:
    """A function whose annotations say what it takes, as an op that changes none of it.

    Args:
        name: of the op, after `ranker_kernels::`.
        function: what it does on any device that has no other kernel.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        schema = torch.library.infer_schema(function, mutates_args=())
        _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
        self._register("CompositeExplicitAutograd", function)
        self.overload = getattr(torch.ops.ranker_kernels, name).default
        self._backward: Callable[..., tuple[Any, ...]] | None = None
        self._save: Callable[..., None] = lambda *_: None
        self._register("Autograd", self._differentiably())

    def _register(self, key: str, function: Callable[..., Any]) -> None:
        _LIBRARY.impl(self.name, function, key)  # type: ignore[no-untyped-call]

    def __call__(self, *inputs: Any) -> Any:
        """Returns what the kernel of the inputs' device does."""
        return self.overload(*inputs)

    def register_cuda(self, function: _Function) -> _Function:
        """Decorates the kernel of NVIDIA's devices."""
        self._register("CUDA", on_device_of_inputs(function))
        return function

    def register_fake(self, function: _Function) -> _Function:
        """Decorates what makes empty outputs, for compilers."""
        torch.library.register_fake(self.overload, function)
        return function

    def register_autocast(self, device: str, dtype: torch.dtype) -> None:
        """Has inputs cast to a dtype where autocast is on."""
        torch.library.register_autocast(self.overload, device, dtype)

    def register_autograd(
        self, backward: Callable[..., tuple[Any, ...]], *, setup_context: Callable[..., None]
    ) -> None:
        """Gives the op a backward.

        Args:
            backward: from the context and the gradients of the outputs to the gradients of all
                inputs; that of a list of tensors is a list.
            setup_context: from the context, the inputs and what the op returned.
        """
        self._backward, self._save = backward, setup_context

    def _differentiably(self) -> Callable[..., Any]:
        """Returns what runs where gradients may be wanted; without a backward it raises then."""

        class Differentiable(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, lengths: Sequence[int | None], *flat: Any) -> Any:
                inputs = _regroup(flat, lengths)
                with torch._C._AutoDispatchBelowAutograd():
                    output = self.overload(*inputs)
                self._save(ctx, inputs, output)
                # autograd would not look into a list
                return tuple(output) if isinstance(output, list) else output

            @staticmethod
            def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
                if self._backward is None:
                    raise NotImplementedError(f"ranker_kernels::{self.name} has no backward")
                return None, *_flatten(self._backward(ctx, *gradients))

        returns_list = str(self.overload._schema.returns[0].type) == "List[Tensor]"

        def call(*inputs: Any) -> Any:
            if torch.is_grad_enabled():
                output = Differentiable.apply(_lengths(inputs), *_flatten(inputs))  # type: ignore[no-untyped-call]
                return list(output) if returns_list else output
            with torch._C._AutoDispatchBelowAutograd():
                return self.overload(*inputs)

        return call


# autograd sees the tensors that are arguments of their own, and none in a list


def _lengths(values: Sequence[Any]) -> list[int | None]:
    return [len(value) if isinstance(value, list | tuple) else None for value in values]


def _flatten(values: Sequence[Any]) -> list[Any]:
    flat: list[Any] = []
    for value in values:
        if isinstance(value, list | tuple):
            flat += value
        else:
            flat.append(value)
    return flat


def _regroup(flat: Sequence[Any], lengths: Sequence[int | None]) -> tuple[Any, ...]:
    remaining = iter(flat)
    return tuple(
        next(remaining) if length is None else [next(remaining) for _ in range(length)]
        for length in lengths
    )
