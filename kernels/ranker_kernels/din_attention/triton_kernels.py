"""Triton kernels of DIN's attention with two hidden layers, one candidate at a time.

A program walks over candidates, and over each window tile by tile; nothing of a pair's activations
reaches memory. The first layer of a candidate is one matrix in registers,

    [(Wk - Wd) + Wp diag(q)] k + c,    c = (Wq + Wd) q + b1,

with c computed outside. Backward recomputes, in two kernels because one would spill its registers:
`backward_pairs` for what belongs to pairs and the later layers, `backward_first_layer` for the
first. Sums over the batch are kept per program and added up outside: no atomics, same bits twice.

Products take 16-bit operands on tensor cores, float32 ones exactly ("ieee"): splitting float32 into
three tensor-core products needs more shared memory than a Hopper chip has.

Sides of tiles are powers of two. Padded units have zero weights in and out; columns of a row
beyond `DIM` are masked. Offsets into the behaviour axis are 64-bit.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.triton_kernels import load_rows, store_rows

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
def _slope(z, h, alpha, rate, shift, KIND: tl.constexpr):
    """Returns dh / dz."""
    if KIND == SIGMOID:
        return h * (1 - h)
    if KIND == PRELU:
        return tl.where(z > 0, 1.0, alpha)
    gate = tl.sigmoid(z * rate + shift)
    return alpha + (1 - alpha) * (gate + z * gate * (1 - gate) * rate)


@triton.jit
def _alpha_slope(z, rate, shift, KIND: tl.constexpr):
    """Returns dh / dalpha; there is none for a sigmoid."""
    if KIND == PRELU:
        return tl.minimum(z, 0.0)
    return z * (1 - tl.sigmoid(z * rate + shift))


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
    """Returns q `[D]`, the candidate's first layer `[D, H1]` and c `[H1]`."""
    dims, units = tl.arange(0, D), tl.arange(0, H1)
    q = tl.load(query + candidate * DIM + dims, mask=dims < DIM, other=0.0).to(tl.float32)
    tile = dims[:, None] * H1 + units[None, :]
    first = tl.load(first_weight + tile) + q[:, None] * tl.load(first_weight + D * H1 + tile)
    return q, first.to(DOT), tl.load(of_candidate + candidate * H1 + units)


@triton.jit
def _load_second_layer(weight2, units2, H1: tl.constexpr, H2: tl.constexpr, DOT: tl.constexpr):
    """Loads W2 `[H2, H1]`, and bias, score weight, alpha, rate, shift: the rows of `units2`."""
    units, inputs = tl.arange(0, H2), tl.arange(0, H1)
    weight = tl.load(weight2 + units[:, None] * H1 + inputs[None, :]).to(DOT)
    bias, score_weight = tl.load(units2 + units), tl.load(units2 + H2 + units)
    alpha, rate, shift = _load_activation(units2 + 2 * H2, units, H2)
    return weight, bias, score_weight, alpha, rate, shift


@triton.jit
def _score(
    behaviors, rows, valid, first, c, units1, weight2, bias2, score_weight, score_bias,
    alpha2, rate2, shift2,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr,
    KIND: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Returns the keys `[TILE, D]`, both layers before and after activation, and the score."""
    key = load_rows(behaviors, rows, valid, DIM, D).to(DOT)
    alpha1, rate1, shift1 = _load_activation(units1, tl.arange(0, H1), H1)
    z1 = tl.dot(key, first, input_precision="ieee") + c
    h1 = _activate(z1, alpha1, rate1, shift1, KIND)
    z2 = tl.dot(h1.to(DOT), tl.trans(weight2), input_precision="ieee") + bias2
    h2 = _activate(z2, alpha2, rate2, shift2, KIND)
    return key, z1, h1, z2, h2, tl.sum(h2 * score_weight, 1) + score_bias


@triton.jit
def forward(
    query, behaviors, windows, order, of_candidate, first_weight, units1, weight2, units2,
    score_bias_pointer, output, terms, num_candidates, scale,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, TILE: tl.constexpr,
    KIND: tl.constexpr, SOFTMAX: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Writes the output `[C, DIM]`; with softmax, also the terms `[2, C]`."""
    weight, bias, score_weight, alpha, rate, shift = _load_second_layer(
        weight2, units2, H1, H2, DOT
    )
    score_bias = tl.load(score_bias_pointer)
    dims = tl.arange(0, D)
    for turn in range(tl.program_id(0), num_candidates, tl.num_programs(0)):
        candidate = tl.load(order + turn)
        begin, end = tl.load(windows + 2 * candidate), tl.load(windows + 2 * candidate + 1)
        _q, first, c = _load_candidate(
            candidate, query, of_candidate, first_weight, DIM, D, H1, DOT
        )
        maximum, total = -float("inf"), 0.0
        pooled = tl.zeros([D], tl.float32)
        for start in range(begin, end, TILE):
            rows = start + tl.arange(0, TILE)
            valid = rows < end
            key, _z1, _h1, _z2, _h2, score = _score(
                behaviors, rows, valid, first, c, units1, weight, bias, score_weight, score_bias,
                alpha, rate, shift, DIM, D, H1, KIND, DOT,
            )  # fmt: skip
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
        if SOFTMAX:
            tl.store(terms + candidate, maximum)
            tl.store(terms + num_candidates + candidate, total)
            pooled = pooled / tl.where(end > begin, total, 1.0)
        tl.store(output + candidate * DIM + dims, pooled, mask=dims < DIM)


@triton.jit
def _share(score, candidate, terms, num_candidates, scale, SOFTMAX: tl.constexpr):
    """Returns the weight of every row in the pool."""
    if SOFTMAX:
        maximum = tl.load(terms + candidate)
        return tl.exp(score * scale - maximum) / tl.load(terms + num_candidates + candidate)
    return score


@triton.jit
def _score_gradient(key, share, valid, upstream, mean_gradient, scale, SOFTMAX: tl.constexpr):
    gradient = tl.sum(key.to(tl.float32) * upstream[None, :], 1)
    if SOFTMAX:
        gradient = share * (gradient - mean_gradient) * scale
    return tl.where(valid, gradient, 0.0)


@triton.jit
def _store_sums(
    weight2_gradient, units1_gradient, units2_gradient, score_bias_gradient,
    weight, alpha1, bias, score_weight, alpha2, score_bias, H1: tl.constexpr, H2: tl.constexpr,
):  # fmt: skip
    """Writes the sums of this program to its slice of each output."""
    program = tl.program_id(0).to(tl.int64)
    outer, inner = tl.arange(0, H2), tl.arange(0, H1)
    tile = outer[:, None] * H1 + inner[None, :]
    tl.store(weight2_gradient + program * H2 * H1 + tile, weight)
    tl.store(units1_gradient + program * H1 + inner, alpha1)
    tl.store(units2_gradient + program * 3 * H2 + outer, bias)
    tl.store(units2_gradient + program * 3 * H2 + H2 + outer, score_weight)
    tl.store(units2_gradient + program * 3 * H2 + 2 * H2 + outer, alpha2)
    tl.store(score_bias_gradient + program, score_bias)


@triton.jit
def backward_pairs(
    query, behaviors, windows, order, of_candidate, first_weight, units1, weight2, units2,
    score_bias_pointer, terms, upstream, mean_gradients, key_rows,
    key_gradient, of_candidate_gradient, weight2_gradient, units1_gradient, units2_gradient,
    score_bias_gradient, num_turns, num_candidates, scale,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, TILE: tl.constexpr,
    KIND: tl.constexpr, SOFTMAX: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Gradients of keys, of c, and of everything behind the first layer.

    It serves the `num_turns` candidates in `order`.
    Window rows of candidate i start at row `key_rows[i]` of `key_gradient`. The last four outputs
    have one slice for each program: `[H2, H1]`, alpha1 `[H1]`, `[3, H2]` with bias, score weight
    and alpha, and one number.
    """
    weight, bias, score_weight, alpha, rate, shift = _load_second_layer(
        weight2, units2, H1, H2, DOT
    )
    score_bias = tl.load(score_bias_pointer)
    dims, inner = tl.arange(0, D), tl.arange(0, H1)
    sum_weight = tl.zeros([H2, H1], tl.float32)
    sum_bias, sum_score_weight = tl.zeros([H2], tl.float32), tl.zeros([H2], tl.float32)
    sum_alpha1, sum_alpha2 = tl.zeros([H1], tl.float32), tl.zeros([H2], tl.float32)
    sum_score_bias = 0.0
    for turn in range(tl.program_id(0), num_turns, tl.num_programs(0)):
        candidate = tl.load(order + turn)
        begin, end = tl.load(windows + 2 * candidate), tl.load(windows + 2 * candidate + 1)
        _q, first, c = _load_candidate(
            candidate, query, of_candidate, first_weight, DIM, D, H1, DOT
        )
        pooled = tl.load(upstream + candidate * DIM + dims, mask=dims < DIM, other=0.0)
        mean_gradient = tl.load(mean_gradients + candidate)
        written = tl.load(key_rows + candidate) - begin
        sum_c = tl.zeros([H1], tl.float32)
        for start in range(begin, end, TILE):
            rows = start + tl.arange(0, TILE)
            valid = rows < end
            key, z1, h1, z2, h2, score = _score(
                behaviors, rows, valid, first, c, units1, weight, bias, score_weight, score_bias,
                alpha, rate, shift, DIM, D, H1, KIND, DOT,
            )  # fmt: skip
            share = _share(score, candidate, terms, num_candidates, scale, SOFTMAX)
            gradient = _score_gradient(key, share, valid, pooled, mean_gradient, scale, SOFTMAX)
            sum_score_bias += tl.sum(gradient, 0)
            sum_score_weight += tl.sum(gradient[:, None] * h2, 0)
            h2_gradient = gradient[:, None] * score_weight
            if KIND != SIGMOID:
                sum_alpha2 += tl.sum(h2_gradient * _alpha_slope(z2, rate, shift, KIND), 0)
            z2_gradient = h2_gradient * _slope(z2, h2, alpha, rate, shift, KIND)
            sum_bias += tl.sum(z2_gradient, 0)
            z2_gradient = z2_gradient.to(DOT)
            sum_weight += tl.dot(tl.trans(z2_gradient), h1.to(DOT), input_precision="ieee")
            alpha1, rate1, shift1 = _load_activation(units1, inner, H1)
            h1_gradient = tl.dot(z2_gradient, weight, input_precision="ieee")
            if KIND != SIGMOID:
                sum_alpha1 += tl.sum(h1_gradient * _alpha_slope(z1, rate1, shift1, KIND), 0)
            z1_gradient = h1_gradient * _slope(z1, h1, alpha1, rate1, shift1, KIND)
            sum_c += tl.sum(z1_gradient, 0)
            through_score = tl.dot(z1_gradient.to(DOT), tl.trans(first), input_precision="ieee")
            of_key = through_score + share[:, None] * pooled[None, :]
            store_rows(key_gradient, written + rows, valid, of_key, DIM, D)
        tl.store(of_candidate_gradient + candidate * H1 + inner, sum_c)
    _store_sums(
        weight2_gradient, units1_gradient, units2_gradient, score_bias_gradient,
        sum_weight, sum_alpha1, sum_bias, sum_score_weight, sum_alpha2, sum_score_bias, H1, H2,
    )  # fmt: skip


@triton.jit
def _add(pointers, value):
    """Adds to memory that only this program writes to."""
    tl.store(pointers, tl.load(pointers) + value)
    # another thread may read it next
    tl.debug_barrier()


@triton.jit
def backward_first_layer(
    query, behaviors, windows, order, of_candidate, first_weight, units1, weight2, units2,
    score_bias_pointer, terms, upstream, mean_gradients,
    query_gradient, first_weight_gradient, num_candidates, scale,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, TILE: tl.constexpr,
    KIND: tl.constexpr, SOFTMAX: tl.constexpr, DOT: tl.constexpr, HOLD: tl.constexpr,
):  # fmt: skip
    """Gradients of q `[C, DIM]` through q * k, and of both blocks, `[2, D, H1]` for each program.

    The latter starts as zeros. Their sums are kept in registers with `HOLD`, else in the output:
    exact products take all registers.

    The gradient G of a candidate's matrix (Wk - Wd) + Wp diag(q) holds all three: G itself,
    G diag(q), and the row sums of G * Wp.
    """
    weight, bias, score_weight, alpha, rate, shift = _load_second_layer(
        weight2, units2, H1, H2, DOT
    )
    score_bias = tl.load(score_bias_pointer)
    dims, inner = tl.arange(0, D), tl.arange(0, H1)
    tile = dims[:, None] * H1 + inner[None, :]
    slot = first_weight_gradient + tl.program_id(0).to(tl.int64) * 2 * D * H1
    if HOLD:
        sum_behavior, sum_product = tl.zeros([D, H1], tl.float32), tl.zeros([D, H1], tl.float32)
    for turn in range(tl.program_id(0), num_candidates, tl.num_programs(0)):
        candidate = tl.load(order + turn)
        begin, end = tl.load(windows + 2 * candidate), tl.load(windows + 2 * candidate + 1)
        q, first, c = _load_candidate(candidate, query, of_candidate, first_weight, DIM, D, H1, DOT)
        pooled = tl.load(upstream + candidate * DIM + dims, mask=dims < DIM, other=0.0)
        mean_gradient = tl.load(mean_gradients + candidate)
        matrix = tl.zeros([D, H1], tl.float32)
        for start in range(begin, end, TILE):
            rows = start + tl.arange(0, TILE)
            valid = rows < end
            key, z1, h1, z2, h2, score = _score(
                behaviors, rows, valid, first, c, units1, weight, bias, score_weight, score_bias,
                alpha, rate, shift, DIM, D, H1, KIND, DOT,
            )  # fmt: skip
            share = _share(score, candidate, terms, num_candidates, scale, SOFTMAX)
            gradient = _score_gradient(key, share, valid, pooled, mean_gradient, scale, SOFTMAX)
            z2_gradient = gradient[:, None] * score_weight
            z2_gradient *= _slope(z2, h2, alpha, rate, shift, KIND)
            alpha1, rate1, shift1 = _load_activation(units1, inner, H1)
            h1_gradient = tl.dot(z2_gradient.to(DOT), weight, input_precision="ieee")
            z1_gradient = h1_gradient * _slope(z1, h1, alpha1, rate1, shift1, KIND)
            matrix += tl.dot(tl.trans(key), z1_gradient.to(DOT), input_precision="ieee")
        # read again: held through the loop, it would spill registers
        product = tl.load(first_weight + D * H1 + tile)
        row = tl.sum(matrix * product, 1)
        tl.store(query_gradient + candidate * DIM + dims, row, mask=dims < DIM)
        if HOLD:
            sum_behavior += matrix
            sum_product += q[:, None] * matrix
        else:
            _add(slot + tile, matrix)
            _add(slot + D * H1 + tile, q[:, None] * matrix)
    if HOLD:
        tl.store(slot + tile, sum_behavior)
        tl.store(slot + D * H1 + tile, sum_product)
