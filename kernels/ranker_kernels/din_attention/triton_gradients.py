"""Triton functions of a backward's tile: from keys forward, and from the loss back to z1.

The loss reaches a pair through its score and its weighted key; or, with `MOMENTS` = 1 or 2, through
mean and variance of that hidden layer over all pairs, that is through dz = z * rate + shift: such a
layer has no activation, and its place in the unit has the line's numbers (`triton_prepare.py`).

With `SUM`, gradients of what the batch shares are added up, in a tuple: of the last bias and the
score's weight; of b2 and W2; of what the second activation has, and the first.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.din_attention.triton_kernels import (
    DICE,
    PRELU,
    SIGMOID,
    activate,
    load_activation,
    pass_first_layer,
    pass_second_layer,
    sigmoid,
)


@triton.jit
def _slope(z, h, alpha, rate, shift, KIND: tl.constexpr, DOT: tl.constexpr):
    """Returns dh / dz."""
    if KIND == SIGMOID:
        return h * (1 - h)
    if KIND == PRELU:
        return tl.where(z > 0, 1.0, alpha)
    gate = sigmoid(z * rate + shift, DOT)
    return alpha + (1 - alpha) * (gate + z * gate * (1 - gate) * rate)


@triton.jit
def _alpha_slope(z, rate, shift, KIND: tl.constexpr, DOT: tl.constexpr):
    """Returns dh / dalpha; there is none for a sigmoid."""
    if KIND == PRELU:
        return tl.minimum(z, 0.0)
    return z * (1 - sigmoid(z * rate + shift, DOT))


@triton.jit
def _on_line(z, rate, shift, valid):
    """Returns the gradient of z that comes from its mean and variance."""
    return tl.where(valid[:, None], z * rate + shift, 0.0)


@triton.jit
def load_upstream(
    candidate, upstream, output, terms, num_candidates,
    DIM: tl.constexpr, D: tl.constexpr, SOFTMAX: tl.constexpr, MOMENTS: tl.constexpr,
):  # fmt: skip
    """Returns the gradient of a candidate's output `[D]`, and what the softmax needs besides.

    That is the product of output and gradient, and the terms; zeros where they are not needed.
    """
    pooled, mean, maximum, total = 0.0, 0.0, 0.0, 0.0
    if MOMENTS == 0:
        dims = tl.arange(0, D)
        at = candidate * DIM + dims
        pooled = tl.load(upstream + at, mask=dims < DIM, other=0.0).to(tl.float32)
        if SOFTMAX:
            of_output = tl.load(output + at, mask=dims < DIM, other=0.0).to(tl.float32)
            mean = tl.sum(pooled * of_output, 0)
            maximum = tl.load(terms + candidate)
            total = tl.load(terms + num_candidates + candidate)
    return pooled, mean, maximum, total


@triton.jit
def _differentiate_scores(key, valid, score, of_output, scale, SOFTMAX: tl.constexpr):
    """Returns the weight of every row in the pool, 0 where there is none, and scores' gradient."""
    pooled, mean, maximum, total = of_output
    gradient = tl.sum(key.to(tl.float32) * pooled[None, :], 1)
    if SOFTMAX:
        share = tl.exp(tl.where(valid, score * scale - maximum, -float("inf"))) / total
        gradient = share * (gradient - mean) * scale
    else:
        share = tl.where(valid, score, 0.0)
    return share, tl.where(valid, gradient, 0.0)


@triton.jit
def _sum_score(sums, gradient, h2):
    """Adds gradients of the last bias and of the score's weight."""
    of_bias, of_weight = sums
    return of_bias + tl.sum(gradient, 0), of_weight + tl.sum(gradient[:, None] * h2, 0)


@triton.jit
def _sum_second(sums, z2_gradient, h1, DOT: tl.constexpr):
    """Adds gradients of b2 and W2."""
    of_bias, of_weight = sums
    of_bias += tl.sum(z2_gradient, 0)
    transposed = tl.trans(z2_gradient.to(DOT))
    return of_bias, of_weight + tl.dot(transposed, h1.to(DOT), input_precision="ieee")


@triton.jit
def _sum_activation(sums, h_gradient, z, alpha, rate, shift, KIND: tl.constexpr, DOT: tl.constexpr):
    """Adds gradients of alpha; and Dice's of s = (z - mean) * rate, and those times s."""
    of_alpha, of_s, of_square = sums
    if KIND != SIGMOID:
        of_alpha += tl.sum(h_gradient * _alpha_slope(z, rate, shift, KIND, DOT), 0)
    if KIND == DICE:
        s = z * rate + shift
        gate = sigmoid(s, DOT)
        s_gradient = h_gradient * z * (1 - alpha) * (gate * (1 - gate))
        of_s += tl.sum(s_gradient, 0)
        of_square += tl.sum(s_gradient * s, 0)
    return of_alpha, of_s, of_square


@triton.jit
def _differentiate_second(
    key, valid, z1, unit, later, of_output, scale, sums,
    D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, KIND: tl.constexpr,
    SOFTMAX: tl.constexpr, MOMENTS: tl.constexpr, DOT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Does what `differentiate_keys` does, from z1 on."""
    weight, bias, score_weight, alpha, rate, shift, score_bias = later
    h1, z2 = pass_second_layer(z1, unit, weight, bias, D, H1, H2, KIND, DOT)
    if SUM:
        of_score, of_second, of_activation2, of_activation1 = sums
    if MOMENTS == 2:
        share = 0.0
        z2_gradient = _on_line(z2, rate, shift, valid)
    else:
        h2 = activate(z2, alpha, rate, shift, KIND, DOT)
        score = tl.sum(h2 * score_weight, 1) + score_bias
        share, gradient = _differentiate_scores(key, valid, score, of_output, scale, SOFTMAX)
        h2_gradient = gradient[:, None] * score_weight
        if SUM:
            of_score = _sum_score(of_score, gradient, h2)
            of_activation2 = _sum_activation(
                of_activation2, h2_gradient, z2, alpha, rate, shift, KIND, DOT
            )
        z2_gradient = h2_gradient * _slope(z2, h2, alpha, rate, shift, KIND, DOT)
    if SUM:
        of_second = _sum_second(of_second, z2_gradient, h1, DOT)
    # read again: held all the way, they would spill registers
    alpha1, rate1, shift1 = load_activation(unit + 3 * D * H1 + H2 * H1, tl.arange(0, H1), H1)
    h1_gradient = tl.dot(z2_gradient.to(DOT), weight, input_precision="ieee")
    if SUM:
        of_activation1 = _sum_activation(
            of_activation1, h1_gradient, z1, alpha1, rate1, shift1, KIND, DOT
        )
        sums = of_score, of_second, of_activation2, of_activation1
    return share, h1_gradient * _slope(z1, h1, alpha1, rate1, shift1, KIND, DOT), sums


@triton.jit
def differentiate_keys(
    key, valid, first, of_candidate, unit, later, of_output, scale, sums,
    D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, KIND: tl.constexpr,
    SOFTMAX: tl.constexpr, MOMENTS: tl.constexpr, DOT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Passes keys `[TILE, D]` forward and the loss back.

    Returns:
        The weight of every row in the pool (0 with `MOMENTS`), the gradient of z1 `[TILE, H1]`, and
        with `SUM` the sums with this tile's.
    """
    z1 = pass_first_layer(key, first, of_candidate)
    if MOMENTS == 1:
        share = 0.0
        _alpha, rate, shift = load_activation(unit + 3 * D * H1 + H2 * H1, tl.arange(0, H1), H1)
        z1_gradient = _on_line(z1, rate, shift, valid)
    else:
        share, z1_gradient, sums = _differentiate_second(
            key, valid, z1, unit, later, of_output, scale, sums,
            D, H1, H2, KIND, SOFTMAX, MOMENTS, DOT, SUM,
        )  # fmt: skip
    return share, z1_gradient, sums


@triton.jit
def start_sums(H1: tl.constexpr, H2: tl.constexpr):
    """Returns the sums of nothing."""
    inner, outer = tl.zeros([H1], tl.float32), tl.zeros([H2], tl.float32)
    matrix = tl.zeros([H2, H1], tl.float32)
    return (0.0, outer), (outer, matrix), (outer, outer, outer), (inner, inner, inner)


@triton.jit
def store_sums(sums, weight, vectors, H1: tl.constexpr, H2: tl.constexpr, MOMENTS: tl.constexpr):
    """Stores W2's gradient `[H2, H1]`, and vectors behind that of b1, as far as there are any."""
    of_score, of_second, of_activation2, of_activation1 = sums
    inner, outer = tl.arange(0, H1), tl.arange(0, H2)
    vectors2 = vectors + 4 * H1
    if MOMENTS != 1:
        tl.store(weight + outer[:, None] * H1 + inner[None, :], of_second[1])
        for part in tl.static_range(3):
            tl.store(vectors + (1 + part) * H1 + inner, of_activation1[part])
        tl.store(vectors2 + outer, of_second[0])
    if MOMENTS == 0:
        tl.store(vectors2 + H2 + outer, of_score[1])
        for part in tl.static_range(3):
            tl.store(vectors2 + (2 + part) * H2 + outer, of_activation2[part])
        tl.store(vectors2 + 5 * H2, of_score[0])
