"""Triton kernel of DIN's attention with two hidden layers, one candidate at a time.

A program walks over candidates, and over each window tile by tile; nothing of a pair's activations
reaches memory. The first layer of a candidate is one matrix in registers,

    [(Wk - Wd) + Wp diag(q)] k + c,    c = (Wq + Wd) q + b1,

with c, and the unit in one piece of memory, from `triton_prepare.py`.

Products take 16-bit operands on tensor cores, float32 ones exactly ("ieee"): splitting float32 into
three tensor-core products needs more shared memory than a Hopper chip has. Beside 16-bit operands,
sigmoids have 11 bits.

Sides of tiles are powers of two. Padded units have zero weights in and out; columns of a row
beyond `DIM` are masked. Offsets into the behaviour axis are 64-bit.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.triton_kernels import load_rows

SIGMOID = tl.constexpr(0)
PRELU = tl.constexpr(1)
DICE = tl.constexpr(2)


@triton.jit
def sigmoid(z, DOT: tl.constexpr):
    """Returns 1 / (1 + exp(-z)), to 11 bits where products round to fewer.

    That takes one slow instruction instead of two, and those bound the kernels.
    """
    if DOT == tl.float32:  # noqa: SIM300
        return tl.sigmoid(z)
    tanh = tl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=r,r", [0.5 * z], dtype=tl.float32, is_pure=True, pack=1
    )
    return 0.5 * tanh + 0.5


@triton.jit
def activate(z, alpha, rate, shift, KIND: tl.constexpr, DOT: tl.constexpr):
    """Returns h, the hidden layer's output."""
    if KIND == SIGMOID:
        return sigmoid(z, DOT)
    if KIND == PRELU:
        return tl.where(z > 0, z, alpha * z)
    return z * (alpha + (1 - alpha) * sigmoid(z * rate + shift, DOT))


@triton.jit
def load_activation(activation, units, WIDTH: tl.constexpr):
    """Loads alpha, rate and shift, the rows of `activation` `[3, WIDTH]`."""
    alpha = tl.load(activation + units)
    rate = tl.load(activation + WIDTH + units)
    return alpha, rate, tl.load(activation + 2 * WIDTH + units)


@triton.jit
def load_candidate(
    candidate, query, c, unit,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Returns q `[D]`, the candidate's first layer `[D, H1]` and its c `[H1]`."""
    dims, units = tl.arange(0, D), tl.arange(0, H1)
    q = tl.load(query + candidate * DIM + dims, mask=dims < DIM, other=0.0).to(tl.float32)
    tile = dims[:, None] * H1 + units[None, :]
    first = tl.load(unit + tile) + q[:, None] * tl.load(unit + D * H1 + tile)
    return q, first.to(DOT), tl.load(c + candidate * H1 + units)


@triton.jit
def load_later_layers(unit, D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, DOT: tl.constexpr):
    """Loads W2 `[H2, H1]`, and bias, score weight, alpha, rate, shift; and the last bias."""
    units, inputs = tl.arange(0, H2), tl.arange(0, H1)
    weight2 = unit + 3 * D * H1
    vectors = weight2 + H2 * H1 + 3 * H1
    weight = tl.load(weight2 + units[:, None] * H1 + inputs[None, :]).to(DOT)
    bias, score_weight = tl.load(vectors + units), tl.load(vectors + H2 + units)
    alpha, rate, shift = load_activation(vectors + 2 * H2, units, H2)
    return weight, bias, score_weight, alpha, rate, shift, tl.load(vectors + 5 * H2)


@triton.jit
def pass_first_layer(key, first, c):
    """Returns z1 `[TILE, H1]` of keys `[TILE, D]`."""
    return tl.dot(key, first, input_precision="ieee") + c


@triton.jit
def pass_second_layer(
    z1, unit, weight2, bias2,
    D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, KIND: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Returns h1 `[TILE, H1]` and z2 `[TILE, H2]`."""
    units1 = unit + 3 * D * H1 + H2 * H1
    alpha1, rate1, shift1 = load_activation(units1, tl.arange(0, H1), H1)
    h1 = activate(z1, alpha1, rate1, shift1, KIND, DOT)
    return h1, tl.dot(h1.to(DOT), tl.trans(weight2), input_precision="ieee") + bias2


# an argument of 1 would be a constant
@triton.jit(do_not_specialize=["num_candidates"])
def forward(
    query, behaviors, windows, c, unit, plan, output, terms, num_candidates, scale,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, TILE: tl.constexpr,
    KIND: tl.constexpr, SOFTMAX: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Writes the output `[C, DIM]` and the terms of the softmax `[2, C]`, zeros without one."""
    weight, bias, score_weight, alpha, rate, shift, score_bias = load_later_layers(
        unit, D, H1, H2, DOT
    )
    dims = tl.arange(0, D)
    last = tl.load(plan + tl.program_id(0) + 1)
    for candidate in range(tl.load(plan + tl.program_id(0)), last):
        begin, end = tl.load(windows + 2 * candidate), tl.load(windows + 2 * candidate + 1)
        _q, first, of_candidate = load_candidate(candidate, query, c, unit, DIM, D, H1, DOT)
        maximum, total = 0.0, 0.0
        if SOFTMAX:
            maximum = -float("inf")
        pooled = tl.zeros([D], tl.float32)
        for start in range(begin, end, TILE):
            rows = start + tl.arange(0, TILE)
            valid = rows < end
            key = load_rows(behaviors, rows, valid, DIM, D).to(DOT)
            z1 = pass_first_layer(key, first, of_candidate)
            _h1, z2 = pass_second_layer(z1, unit, weight, bias, D, H1, H2, KIND, DOT)
            h2 = activate(z2, alpha, rate, shift, KIND, DOT)
            score = tl.sum(h2 * score_weight, 1) + score_bias
            if SOFTMAX:
                score = tl.where(valid, score * scale, -float("inf"))
                risen = tl.maximum(maximum, tl.max(score, 0))
                share = tl.exp(score - risen)
                shrink = tl.exp(maximum - risen)
                total = total * shrink + tl.sum(share, 0)
                pooled = pooled * shrink
                maximum = risen
            else:
                share = tl.where(valid, score, 0.0)
            pooled += tl.sum(share[:, None] * key.to(tl.float32), 0)
        tl.store(terms + candidate, maximum)
        tl.store(terms + num_candidates + candidate, total)
        if SOFTMAX:
            pooled = pooled / tl.where(end > begin, total, 1.0)
        tl.store(output + candidate * DIM + dims, pooled, mask=dims < DIM)
