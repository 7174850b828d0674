"""Triton kernel that readies in one launch what the others read: the unit, c, and a plan.

`unit` holds the weights in float32, padded with zeros to powers of two, one behind the other: the
blocks of the first layer for behaviour, product and candidate, each `[D, H1]`; W2 `[H2, H1]`;
alpha, rate and shift of the first layer; bias, score weight, alpha, rate and shift of the second;
the last bias. Dice's gate is sigmoid(z * rate + shift). `c` `[C, H1]` is (Wq + Wd) q + b1.

For the moments of a layer, `MOMENTS`, the unit ends before its activation. Their backward has rate
and shift there of a line: dz = z * rate + shift.

`plan` deals candidates out to programs: `[PROGRAMS + 1]` bounds of ranges that cost nearly the
same, a function of the windows alone, so that sums over a program's candidates have the same bits
twice. For a backward, candidates come in the order of their begins, and `marks` `[6, C]` says how
far each window and those before it reach, where it begins, and whether it stands alone; then, for
chains of windows that overlap, the first candidate, one behind the last, and the tiles of this
and all chains before. Two numbers behind the bounds count chains and tiles.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.din_attention.triton_kernels import DICE, SIGMOID
from ranker_kernels.din_attention.unit import DICE_EPSILON
from ranker_kernels.triton_kernels import load_rows

EPSILON = tl.constexpr(DICE_EPSILON)


@triton.jit
def _larger(left, right):
    return tl.maximum(left, right)


@triton.jit
def _load_windows(windows, order, place, inside, ORDERED: tl.constexpr):
    """Loads begins and ends of the windows at places; 0 where there is none."""
    candidate = place
    if ORDERED:
        candidate = tl.load(order + place, mask=inside, other=0)
    begin = tl.load(windows + 2 * candidate, mask=inside, other=0)
    return begin, tl.load(windows + 2 * candidate + 1, mask=inside, other=0)


@triton.jit
def _cost(begin, end, inside, TILE: tl.constexpr):
    """Returns the tiles of each window, and one more for reading the candidate's own matrix."""
    return tl.where(inside, tl.cdiv(end - begin, TILE) + 1, 0)


@triton.jit
def _deal_out(
    windows, order, plan, num_candidates,
    PROGRAMS: tl.constexpr, BINS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    ORDERED: tl.constexpr,
):  # fmt: skip
    """Writes the bounds: a candidate goes where the middle of its cost falls."""
    lane, program = tl.arange(0, BLOCK), tl.arange(0, BINS)
    costs = tl.zeros([BLOCK], tl.int64)
    for start in range(0, num_candidates, BLOCK):
        inside = start + lane < num_candidates
        begin, end = _load_windows(windows, order, start + lane, inside, False)
        costs += _cost(begin, end, inside, TILE)
    total = tl.sum(costs, 0)
    before = tl.full([], 0, tl.int64)
    dealt = tl.zeros([BINS], tl.int32)
    for start in range(0, num_candidates, BLOCK):
        inside = start + lane < num_candidates
        begin, end = _load_windows(windows, order, start + lane, inside, ORDERED)
        cost = _cost(begin, end, inside, TILE)
        middle = 2 * (before + tl.cumsum(cost, 0)) - cost
        owner = middle * PROGRAMS // (2 * total)
        dealt += tl.histogram(owner.to(tl.int32), BINS, mask=inside)
        before += tl.sum(cost, 0)
    tl.store(plan, 0)
    tl.store(plan + 1 + program, tl.cumsum(dealt, 0).to(tl.int64), mask=program < PROGRAMS)


@triton.jit
def _chain_up(
    windows, order, counts, marks, num_candidates, TILE: tl.constexpr, BLOCK: tl.constexpr
):
    """Writes `marks` and the number of chains of several windows, and of their tiles."""
    lane = tl.arange(0, BLOCK)
    reached, leader = tl.full([], 0, tl.int64), tl.full([], 0, tl.int64)
    chains, tiles = tl.full([], 0, tl.int64), tl.full([], 0, tl.int64)
    for start in range(0, num_candidates, BLOCK):
        place = (start + lane).to(tl.int64)
        inside = place < num_candidates
        more = place + 1 < num_candidates
        begin, end = _load_windows(windows, order, place, inside, True)
        _, end_before = _load_windows(windows, order, place - 1, inside & (place > 0), True)
        next_begin, _ = _load_windows(windows, order, place + 1, more, True)
        past = tl.maximum(reached, tl.associative_scan(end_before, 0, _larger))
        here = tl.maximum(past, end)
        fresh = begin >= past
        last = inside & ((next_begin >= here) | (place + 1 == num_candidates))
        first = tl.where(fresh & inside, place, 0)
        first = tl.maximum(leader, tl.associative_scan(first, 0, _larger))
        ends = last & (fresh == 0)
        low, _ = _load_windows(windows, order, first, ends, True)
        number = tl.where(ends, tl.cdiv(here - low, TILE), 0)
        slot = chains + tl.cumsum(ends.to(tl.int64), 0) - 1
        tl.store(marks + place, here, mask=inside)
        tl.store(marks + num_candidates + place, begin, mask=inside)
        tl.store(marks + 2 * num_candidates + place, (fresh & last).to(tl.int64), mask=inside)
        tl.store(marks + 3 * num_candidates + slot, first, mask=ends)
        tl.store(marks + 4 * num_candidates + slot, place + 1, mask=ends)
        tl.store(marks + 5 * num_candidates + slot, tiles + tl.cumsum(number, 0), mask=ends)
        reached = tl.maximum(reached, tl.max(end, 0))
        leader = tl.maximum(leader, tl.max(first, 0))
        chains += tl.sum(ends.to(tl.int64), 0)
        tiles += tl.sum(number, 0)
    tl.store(counts, chains)
    tl.store(counts + 1, tiles)


@triton.jit
def _pack_activation(
    alpha, mean, variance, to, units, exists, WIDTH: tl.constexpr, KIND: tl.constexpr
):
    """Writes alpha, rate and shift as far as the activation has them."""
    if KIND != SIGMOID:
        tl.store(to + units, tl.load(alpha + units, mask=exists, other=0.0).to(tl.float32))
    if KIND == DICE:
        spread = tl.load(variance + units, mask=exists, other=0.0).to(tl.float32) + EPSILON
        rate = 1.0 / tl.sqrt(spread)
        tl.store(to + WIDTH + units, rate)
        center = tl.load(mean + units, mask=exists, other=0.0).to(tl.float32)
        tl.store(to + 2 * WIDTH + units, -center * rate)


@triton.jit
def _count_pairs(windows, num_candidates, BLOCK: tl.constexpr):
    lengths = tl.zeros([BLOCK], tl.int64)
    for start in range(0, num_candidates, BLOCK):
        place = start + tl.arange(0, BLOCK)
        begin, end = _load_windows(windows, windows, place, place < num_candidates, False)
        lengths += end - begin
    return tl.sum(lengths, 0)


@triton.jit
def _pack_line(
    mean, mean_gradient, variance_gradient, pairs, to, units, exists, WIDTH: tl.constexpr
):
    """Writes rate and shift of dz = dmean / P + 2 (z - mean) / P dvariance, for P pairs."""
    share = 1.0 / tl.maximum(pairs, 1).to(tl.float32)
    of_variance = tl.load(variance_gradient + units, mask=exists, other=0.0).to(tl.float32)
    of_mean = tl.load(mean_gradient + units, mask=exists, other=0.0).to(tl.float32)
    rate = 2 * of_variance * share
    tl.store(to + WIDTH + units, rate)
    center = tl.load(mean + units, mask=exists, other=0.0).to(tl.float32)
    tl.store(to + 2 * WIDTH + units, of_mean * share - center * rate)


@triton.jit
def _load_block(
    weight1, number, DIM: tl.constexpr, D: tl.constexpr, HIDDEN1: tl.constexpr, H1: tl.constexpr
):
    """Loads the given quarter of W1 `[HIDDEN1, 4 DIM]` as `[D, H1]`."""
    dims, units = tl.arange(0, D)[:, None], tl.arange(0, H1)[None, :]
    at = weight1 + units * (4 * DIM) + number * DIM + dims
    return tl.load(at, mask=(dims < DIM) & (units < HIDDEN1), other=0.0).to(tl.float32)


@triton.jit
def _pack_linear(
    weight1, weight2, bias2, unit, DIM: tl.constexpr, D: tl.constexpr, HIDDEN1: tl.constexpr,
    H1: tl.constexpr, HIDDEN2: tl.constexpr, H2: tl.constexpr,
):  # fmt: skip
    dims, units1, units2 = tl.arange(0, D), tl.arange(0, H1), tl.arange(0, H2)
    tile = dims[:, None] * H1 + units1[None, :]
    difference = _load_block(weight1, 2, DIM, D, HIDDEN1, H1)
    tl.store(unit + tile, _load_block(weight1, 1, DIM, D, HIDDEN1, H1) - difference)
    tl.store(unit + D * H1 + tile, _load_block(weight1, 3, DIM, D, HIDDEN1, H1))
    tl.store(unit + 2 * D * H1 + tile, _load_block(weight1, 0, DIM, D, HIDDEN1, H1) + difference)
    weight = load_rows(weight2, units2, units2 < HIDDEN2, HIDDEN1, H1).to(tl.float32)
    to = unit + 3 * D * H1
    tl.store(to + units2[:, None] * H1 + units1[None, :], weight)
    bias = tl.load(bias2 + units2, mask=units2 < HIDDEN2, other=0.0).to(tl.float32)
    tl.store(to + H2 * H1 + 3 * H1 + units2, bias)


@triton.jit
def _pack_rest(
    weight3, bias3, alpha1, alpha2, mean1, variance1, mean2, variance2, pairs, activation1,
    HIDDEN1: tl.constexpr, H1: tl.constexpr, HIDDEN2: tl.constexpr, H2: tl.constexpr,
    KIND: tl.constexpr, MOMENTS: tl.constexpr, ORDERED: tl.constexpr,
):  # fmt: skip
    """Writes activations and the score's weight, and what stands for them with `MOMENTS`."""
    units1, units2 = tl.arange(0, H1), tl.arange(0, H2)
    exists1, exists2 = units1 < HIDDEN1, units2 < HIDDEN2
    activation2 = activation1 + 3 * H1 + 2 * H2
    if MOMENTS != 1:
        _pack_activation(alpha1, mean1, variance1, activation1, units1, exists1, H1, KIND)
    elif ORDERED:
        _pack_line(alpha1, mean1, variance1, pairs, activation1, units1, exists1, H1)
    if MOMENTS == 0:
        _pack_activation(alpha2, mean2, variance2, activation2, units2, exists2, H2, KIND)
        weight = tl.load(weight3 + units2, mask=exists2, other=0.0).to(tl.float32)
        tl.store(activation2 - H2 + units2, weight)
        tl.store(activation2 + 3 * H2, tl.load(bias3).to(tl.float32))
    elif MOMENTS == 2 and ORDERED:
        _pack_line(alpha2, mean2, variance2, pairs, activation2, units2, exists2, H2)


# an argument of 1 would be a constant
@triton.jit(do_not_specialize=["num_candidates"])
def prepare(
    query, windows, order, weight1, weight2, weight3, bias1, bias2, bias3, alpha1, alpha2,
    mean1, variance1, mean2, variance2, unit, c, plan, marks, num_candidates,
    DIM: tl.constexpr, D: tl.constexpr, HIDDEN1: tl.constexpr, H1: tl.constexpr,
    HIDDEN2: tl.constexpr, H2: tl.constexpr, KIND: tl.constexpr, DOT: tl.constexpr,
    TILE: tl.constexpr, PROGRAMS: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr, ORDERED: tl.constexpr, MOMENTS: tl.constexpr,
):  # fmt: skip
    """Writes the bounds in the first program, the unit in the second, and c in the last ones.

    With `ORDERED`, for a backward, the third writes the marks; without, candidates stay in their
    order. For a backward of moments the alpha of that layer is the mean, and its moments are the
    gradients of mean and variance.
    """
    program = tl.program_id(0)
    others: tl.constexpr = 3 if ORDERED else 2
    if program == 0:
        _deal_out(windows, order, plan, num_candidates, PROGRAMS, BINS, TILE, BLOCK, ORDERED)
    elif program == 1:
        pairs = tl.full([], 0, tl.int64)
        if ORDERED and MOMENTS > 0:
            pairs = _count_pairs(windows, num_candidates, BLOCK)
        _pack_linear(weight1, weight2, bias2, unit, DIM, D, HIDDEN1, H1, HIDDEN2, H2)
        _pack_rest(
            weight3, bias3, alpha1, alpha2, mean1, variance1, mean2, variance2, pairs,
            unit + 3 * D * H1 + H2 * H1, HIDDEN1, H1, HIDDEN2, H2, KIND, MOMENTS, ORDERED,
        )  # fmt: skip
    elif program < others:
        _chain_up(windows, order, plan + PROGRAMS + 1, marks, num_candidates, TILE, BLOCK)
    else:
        units = tl.arange(0, H1)
        candidates = (program - others).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        exists = candidates < num_candidates
        q = load_rows(query, candidates, exists, DIM, D)
        weight = _load_block(weight1, 0, DIM, D, HIDDEN1, H1)
        weight += _load_block(weight1, 2, DIM, D, HIDDEN1, H1)
        projected = tl.dot(q.to(DOT), weight.to(DOT), input_precision="ieee")
        projected += tl.load(bias1 + units, mask=units < HIDDEN1, other=0.0).to(tl.float32)
        tl.store(c + candidates[:, None] * H1 + units[None, :], projected, mask=exists[:, None])
