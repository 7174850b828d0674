"""Triton kernels of the gated product: one read of the inputs, one write of the outputs."""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def _load(
    logits, hidden, num_rows, logits_stride, hidden_stride,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Returns places in a contiguous `[C, WIDTH]`, which of them exist, sigmoid and hidden."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * W + tl.arange(0, W)
    exists = (row < num_rows)[:, None] & (column < WIDTH)[None, :]
    logit = tl.load(logits + row[:, None] * logits_stride + column[None, :], mask=exists, other=0.0)
    value = tl.load(hidden + row[:, None] * hidden_stride + column[None, :], mask=exists, other=0.0)
    place = row[:, None] * WIDTH + column[None, :]
    return place, exists, tl.sigmoid(logit.to(tl.float32)), value.to(tl.float32)


# a build for each of a batch's numbers would be compiled in the middle of a training
@triton.jit(do_not_specialize=["num_rows"])
def forward(
    logits, hidden, output, gamma, num_rows, logits_stride, hidden_stride,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Writes gamma * sigmoid(logits) * hidden."""
    place, exists, gate, value = _load(
        logits, hidden, num_rows, logits_stride, hidden_stride, WIDTH, ROWS, W
    )
    tl.store(output + place, gamma * gate * value, mask=exists)


@triton.jit(do_not_specialize=["num_rows"])
def backward(
    gradient, logits, hidden, logits_gradient, hidden_gradient, gamma, num_rows,
    gradient_stride, logits_stride, hidden_stride,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of both factors."""
    place, exists, gate, value = _load(
        logits, hidden, num_rows, logits_stride, hidden_stride, WIDTH, ROWS, W
    )
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * W + tl.arange(0, W)
    at = gradient + row[:, None] * gradient_stride + column[None, :]
    gated = gamma * gate * tl.load(at, mask=exists, other=0.0).to(tl.float32)
    tl.store(hidden_gradient + place, gated, mask=exists)
    tl.store(logits_gradient + place, gated * value * (1 - gate), mask=exists)
