"""Registration of SDIM's interest as a `torch.library` op with a fake and a backward."""

from typing import Any

import torch
from torch import Tensor

from ranker_kernels.ops import Op
from ranker_kernels.signature_sums import grouped


def _pool(behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor) -> Tensor:
    """Returns `[C, D]`."""
    return grouped.forward(_promote(behaviors), codes, wanted, windows).to(behaviors.dtype)


def _pool_backward(
    gradient: Tensor, behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor
) -> Tensor:
    """Returns the gradient of the behaviours."""
    found = grouped.backward(_promote(gradient), _promote(behaviors), codes, wanted, windows)
    return found.to(behaviors.dtype)


pool_collisions = Op("signature_sums", _pool)
pool_collisions_backward = Op("signature_sums_backward", _pool_backward)


@pool_collisions.register_cuda
def pool_with_triton(behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor) -> Tensor:
    """The same with Triton, where its kernels take the shapes and dtypes."""
    # Triton is imported where it runs; a CPU installation does without
    from ranker_kernels.signature_sums import launch

    if not launch.supports(behaviors):
        return _pool(behaviors, codes, wanted, windows)
    return launch.forward(behaviors, codes, wanted, windows).to(behaviors.dtype)


@pool_collisions_backward.register_cuda
def differentiate_with_triton(
    gradient: Tensor, behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor
) -> Tensor:
    """The same with Triton, where its kernels take the shapes and dtypes."""
    from ranker_kernels.signature_sums import launch

    if not launch.supports(behaviors):
        return _pool_backward(gradient, behaviors, codes, wanted, windows)
    return launch.backward(gradient, behaviors, codes, wanted, windows).to(behaviors.dtype)


def _promote(tensor: Tensor) -> Tensor:
    """Half precision is summed in float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@pool_collisions.register_fake
def _(behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor) -> Tensor:
    return behaviors.new_empty(windows.shape[0], behaviors.shape[1])


@pool_collisions_backward.register_fake
def _(gradient: Tensor, behaviors: Tensor, *rest: Tensor) -> Tensor:
    return behaviors.new_empty(behaviors.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    return pool_collisions_backward(gradient.contiguous(), *ctx.saved_tensors), None, None, None


pool_collisions.register_autograd(_differentiate, setup_context=_save)
