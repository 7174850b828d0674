"""Launches the Triton kernels for Dice's moments; nothing here waits for the device."""

import torch
from torch import Tensor

from ranker_kernels.din_attention import triton_moments
from ranker_kernels.din_attention.launch import SUM_SIDES, SUM_WARPS, WARPS, Call, Launch, fits
from ranker_kernels.din_attention.unit import Gradients, Layers, Moments


def supports(query: Tensor, behaviors: Tensor, layers: Layers) -> bool:
    """Whether the kernels take these shapes and dtypes: the first or the second hidden layer.

    A pair's share of a gradient that all pairs share is too small for float16.
    """
    return behaviors.dtype != torch.float16 and fits(query, behaviors, layers, depths=(1, 2))


def forward_moments(
    query: Tensor, behaviors: Tensor, windows: Tensor, layers: Layers, launch: Launch
) -> Moments:
    """Computes what `blocked.forward_moments` does, in float32."""
    # two programs of four warps on a multiprocessor would spill registers
    launch = launch._replace(tiles=launch.tiles._replace(forward_warps=WARPS))
    depth, (hidden,) = len(layers.weights), layers.biases[-1].shape
    call = Call(query, behaviors, windows, layers, launch, moments=depth)
    width = call.constants[f"H{depth}"]
    counts, parts = call.c.new_empty(call.programs), call.c.new_empty(call.programs, 2, width)
    triton_moments.forward_moments[(call.programs,)](
        *(*call.operands, *call.prepared, counts, parts),
        MOMENTS=depth,
        WIDTH=width,
        **call.constants,
        **call.sides,
    )
    moments = Moments(call.c.new_empty(hidden), call.c.new_empty(hidden))
    triton_moments.merge_moments[(-(-width // SUM_SIDES["BLOCK"]),)](
        *(counts, parts, *moments),
        HIDDEN=hidden,
        WIDTH=width,
        PROGRAMS=call.programs,
        num_warps=SUM_WARPS,
        **SUM_SIDES,
    )
    return moments


def backward_moments(
    gradient: Moments,
    mean: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    layers: Layers,
    launch: Launch,
) -> Gradients:
    """Computes what `blocked.backward_moments` does, in the dtypes of what gradients belong to."""
    line = (mean, gradient)
    depth = len(layers.weights)
    call = Call(query, behaviors, windows, layers, launch, ordered=True, moments=depth, line=line)
    # there is no output, nor its gradient and terms
    return call.differentiate(call.c, call.c, call.c)
