"""Triton kernels of DIN's attention with two hidden layers, one candidate at a time.

A program walks over candidates, and over each window tile by tile; nothing of a pair's activations
reaches memory. The first layer of a candidate is one matrix in registers,

    [(Wk - Wd) + Wp diag(q)] k + c,    c = (Wq + Wd) q + b1,

with c computed outside. Backward recomputes, in two kernels because one would spill its registers:
`backward_pairs` for what belongs to pairs and the later layers, `backward_first_layer` for the
first. Sums over the batch are kept per program and added up outside: no atomics, same bits twice.

Sides of tiles are powers of two. Padded units have zero weights in and out; columns of a row
beyond `DIM` are masked. Offsets into the behaviour axis are 64-bit.
"""

import triton
import triton.language as tl

SIGMOID = tl.constexpr(0)
PRELU = tl.constexpr(1)
DICE = tl.constexpr(2)


@triton.jit
def _activate(z, alpha, rate, shift, KIND: tl.constexpr):
    if KIND == SIGMOID:
        return tl.sigmoid(z)
    if KIND == PRELU:
        return tl.where(z > 0, z, alpha * z)
    return z * (alpha + (1 - alpha) * tl.sigmoid(z * rate + shift))


@triton.jit
def _activate_backward(gradient, z, h, alpha, rate, shift, KIND: tl.constexpr):
    """Returns the gradient of z, and that of alpha before the sum over rows."""
    if KIND == SIGMOID:
        return gradient * h * (1 - h), gradient
    if KIND == PRELU:
        return gradient * tl.where(z > 0, 1.0, alpha), gradient * tl.minimum(z, 0.0)
    gate = tl.sigmoid(z * rate + shift)
    closed = 1 - gate
    slope = alpha + (1 - alpha) * (gate + z * gate * closed * rate)
    return gradient * slope, gradient * z * closed


@triton.jit
def _load_activation(activation, units, WIDTH: tl.constexpr):
    """Loads alpha, rate and shift, the rows of `activation` `[3, WIDTH]`."""
    alpha = tl.load(activation + units)
    rate = tl.load(activation + WIDTH + units)
    return alpha, rate, tl.load(activation + 2 * WIDTH + units)


@triton.jit
def _load_candidate(
    candidate, query, of_candidate, first_weight,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Returns q, the product block Wp and the candidate's first layer `[D, H1]`, and c `[H1]`."""
    dims, units = tl.arange(0, D), tl.arange(0, H1)
    q = tl.load(query + candidate * DIM + dims, mask=dims < DIM, other=0.0).to(tl.float32)
    tile = dims[:, None] * H1 + units[None, :]
    product = tl.load(first_weight + D * H1 + tile)
    first = (tl.load(first_weight + tile) + q[:, None] * product).to(DOT)
    return q, product, first, tl.load(of_candidate + candidate * H1 + units)
