"""How the Triton kernels of the gated product are launched."""

from typing import Any

import torch
from torch import Tensor

from ranker_kernels.gated_scale import triton_kernels

# numbers that a program works on, and columns among them at most
SIZE, MAX_COLUMNS = 2048, 512


def forward(logits: Tensor, hidden: Tensor, gamma: float) -> Tensor:
    """Returns gamma * sigmoid(logits) * hidden."""
    dtype = torch.promote_types(logits.dtype, hidden.dtype)
    output = hidden.new_empty(hidden.shape, dtype=dtype)
    _launch(triton_kernels.forward, (logits, hidden), (output,), gamma)
    return output


def backward(
    gradient: Tensor, logits: Tensor, hidden: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of the logits and of what is gated."""
    of_logits, of_hidden = logits.new_empty(logits.shape), hidden.new_empty(hidden.shape)
    inputs = (gradient, logits, hidden)
    _launch(triton_kernels.backward, inputs, (of_logits, of_hidden), gamma)
    return of_logits, of_hidden


def _launch(
    kernel: Any, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], gamma: float
) -> None:
    """Reads rows with any distance from each other: gates are often columns of a wider matrix."""
    num_rows, width = outputs[0].shape
    if not outputs[0].numel():
        return
    rows_apart = [x if x.stride(1) == 1 else x.contiguous() for x in inputs]
    columns = min(MAX_COLUMNS, 1 << (width - 1).bit_length())
    rows = SIZE // columns
    kernel[(-(-num_rows // rows), -(-width // columns))](
        *(*rows_apart, *outputs, gamma, num_rows, *(x.stride(0) for x in rows_apart)),
        WIDTH=width,
        ROWS=rows,
        W=columns,
    )
