"""Triton kernels of the backward of DIN's attention; they recompute what the forward forgot.

There are three because one would spill its registers: `backward_pairs` for what belongs to pairs
and the later layers, `backward_first_layer` for the first, and `backward_keys` for the keys of
behaviours that several candidates see. Candidates come in the order of their begins. What is
summed over the batch is kept per program, in `sums` (see `triton_sums.py`); every gradient of a key
is written once: no atomics, same bits twice. With `MOMENTS` = 1 or 2 they are the backward of that
layer's mean and variance over all pairs instead (see `triton_gradients.py`).
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.din_attention.triton_gradients import (
    differentiate_keys,
    load_upstream,
    start_sums,
    store_sums,
)
from ranker_kernels.din_attention.triton_kernels import load_candidate, load_later_layers
from ranker_kernels.triton_kernels import load_rows, store_rows


@triton.jit
def _clear(matrix, begin, end, step, TILE: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr):
    """Fills rows `[begin, end)` with zeros, a tile in every `step` rows."""
    for start in range(begin, end, step):
        rows = start + tl.arange(0, TILE)
        store_rows(matrix, rows, rows < end, tl.zeros([TILE, D], tl.float32), DIM, D)


# an argument of 1 would be a constant
@triton.jit(do_not_specialize=["num_candidates", "num_behaviors"])
def backward_pairs(
    query, behaviors, windows, order, c, unit, plan, marks, terms, upstream, output,
    key_gradient, c_gradient, sums, num_candidates, num_behaviors, scale,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, TILE: tl.constexpr,
    KIND: tl.constexpr, SOFTMAX: tl.constexpr, MOMENTS: tl.constexpr, DOT: tl.constexpr,
    SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradients of c, of everything behind the first layer, and of keys that one candidate sees.

    Rows of keys that nobody sees are cleared. c's gradient `[C, H1]` is in the order of begins;
    from it comes that of the first layer's block for the candidate, which is summed here.
    """
    later = load_later_layers(unit, D, H1, H2, DOT)
    program = tl.program_id(0)
    inner = tl.arange(0, H1)
    totals = start_sums(H1, H2)
    first_place, last_place = tl.load(plan + program), tl.load(plan + program + 1)
    for place in range(first_place, last_place):
        candidate = tl.load(order + place)
        begin, end = tl.load(windows + 2 * candidate), tl.load(windows + 2 * candidate + 1)
        reached = tl.load(marks + place - 1, mask=place > 0, other=0)
        _clear(key_gradient, reached, begin, TILE, TILE, DIM, D)
        alone = tl.load(marks + 2 * num_candidates + place) > 0
        _q, first, of_candidate = load_candidate(candidate, query, c, unit, DIM, D, H1, DOT)
        of_output = load_upstream(
            candidate, upstream, output, terms, num_candidates, DIM, D, SOFTMAX, MOMENTS
        )
        sum_c = tl.zeros([H1], tl.float32)
        for start in range(begin, end, TILE):
            rows = start + tl.arange(0, TILE)
            valid = rows < end
            key = load_rows(behaviors, rows, valid, DIM, D).to(DOT)
            share, z1_gradient, totals = differentiate_keys(
                key, valid, first, of_candidate, unit, later, of_output, scale, totals,
                D, H1, H2, KIND, SOFTMAX, MOMENTS, DOT, True,
            )  # fmt: skip
            sum_c += tl.sum(z1_gradient, 0)
            if alone:
                of_key = tl.dot(z1_gradient.to(DOT), tl.trans(first), input_precision="ieee")
                if MOMENTS == 0:
                    of_key += share[:, None] * of_output[0][None, :]
                store_rows(key_gradient, rows, valid, of_key, DIM, D)
        tl.store(c_gradient + place * H1 + inner, sum_c)
    reached = tl.load(marks + num_candidates - 1, mask=num_candidates > 0, other=0)
    _clear(
        key_gradient, reached + program * TILE, num_behaviors, tl.num_programs(0) * TILE,
        TILE, DIM, D,
    )  # fmt: skip
    slot = sums + program.to(tl.int64) * SIZE
    vectors = slot + 3 * D * H1 + H2 * H1
    store_sums(totals, slot + 3 * D * H1, vectors, H1, H2, MOMENTS)
    # other threads may have written the rows of c's gradient
    tl.debug_barrier()
    _sum_candidates(
        query, order, c_gradient, first_place, last_place, slot + 2 * D * H1, vectors,
        DIM, D, H1, DOT, ROWS,
    )  # fmt: skip


@triton.jit
def _sum_candidates(
    query, order, c_gradient, first_place, last_place, block, bias,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, DOT: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradients of the first layer's block for the candidate `[D, H1]`, and of b1."""
    dims, units = tl.arange(0, D), tl.arange(0, H1)
    of_block, of_bias = tl.zeros([D, H1], tl.float32), tl.zeros([H1], tl.float32)
    for start in range(first_place, last_place, ROWS):
        place = start + tl.arange(0, ROWS)
        exists = place < last_place
        candidates = tl.load(order + place, mask=exists, other=0)
        q = load_rows(query, candidates, exists, DIM, D).to(DOT)
        of_c = load_rows(c_gradient, place, exists, H1, H1)
        of_block += tl.dot(tl.trans(q), of_c.to(DOT), input_precision="ieee")
        of_bias += tl.sum(of_c, 0)
    tl.store(block + dims[:, None] * H1 + units[None, :], of_block)
    tl.store(bias + units, of_bias)


@triton.jit
def _first_above(values, limit, low, high):
    """Returns the first place in [low, high) whose value is above the limit; values ascend."""
    while low < high:
        middle = (low + high) // 2
        above = tl.load(values + middle) > limit
        low = tl.where(above, low, middle + 1)
        high = tl.where(above, middle, high)
    return low


# an argument of 1 would be a constant
@triton.jit(do_not_specialize=["num_candidates"])
def backward_keys(
    query, behaviors, windows, order, c, unit, plan, marks, terms, upstream, output,
    key_gradient, num_candidates, scale,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, TILE: tl.constexpr,
    KIND: tl.constexpr, SOFTMAX: tl.constexpr, MOMENTS: tl.constexpr, DOT: tl.constexpr,
    PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Gradients of the keys in chains of windows, tile by tile: the sum over all that see it."""
    later = load_later_layers(unit, D, H1, H2, DOT)
    chains = tl.load(plan + PROGRAMS + 1)
    begins, firsts = marks + num_candidates, marks + 3 * num_candidates
    lasts, tiles = marks + 4 * num_candidates, marks + 5 * num_candidates
    for item in range(tl.program_id(0), tl.load(plan + PROGRAMS + 2), tl.num_programs(0)):
        chain = _first_above(tiles, item, chains * 0, chains)
        before = tl.load(tiles + chain - 1, mask=chain > 0, other=0)
        first_place, last_place = tl.load(firsts + chain), tl.load(lasts + chain)
        bottom = tl.load(begins + first_place) + (item - before) * TILE
        rows = bottom + tl.arange(0, TILE)
        inside = rows < tl.load(marks + last_place - 1)
        key = load_rows(behaviors, rows, inside, DIM, D).to(DOT)
        of_key = tl.zeros([TILE, D], tl.float32)
        last_place = _first_above(begins, bottom + TILE - 1, first_place, last_place)
        first_place = _first_above(marks, bottom, first_place, last_place)
        for place in range(first_place, last_place):
            candidate = tl.load(order + place)
            begin, end = tl.load(windows + 2 * candidate), tl.load(windows + 2 * candidate + 1)
            # a short window beside a long one may be over, or empty
            if (end > bottom) & (end > begin):
                _q, first, of_candidate = load_candidate(candidate, query, c, unit, DIM, D, H1, DOT)
                of_output = load_upstream(
                    candidate, upstream, output, terms, num_candidates, DIM, D, SOFTMAX, MOMENTS
                )
                valid = (rows >= begin) & (rows < end)
                share, z1_gradient, _ = differentiate_keys(
                    key, valid, first, of_candidate, unit, later, of_output, scale, (),
                    D, H1, H2, KIND, SOFTMAX, MOMENTS, DOT, False,
                )  # fmt: skip
                of_key += tl.dot(z1_gradient.to(DOT), tl.trans(first), input_precision="ieee")
                if MOMENTS == 0:
                    of_key += share[:, None] * of_output[0][None, :]
        store_rows(key_gradient, rows, inside, of_key, DIM, D)


@triton.jit
def _add(pointers, value):
    """Adds to memory that only this program writes to."""
    tl.store(pointers, tl.load(pointers) + value)
    # another thread may read it next
    tl.debug_barrier()


# an argument of 1 would be a constant
@triton.jit(do_not_specialize=["num_candidates"])
def backward_first_layer(
    query, behaviors, windows, order, c, unit, plan, terms, upstream, output,
    c_gradient, query_gradient, sums, num_candidates, scale,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, TILE: tl.constexpr,
    KIND: tl.constexpr, SOFTMAX: tl.constexpr, MOMENTS: tl.constexpr, DOT: tl.constexpr,
    SIZE: tl.constexpr, HOLD: tl.constexpr,
):  # fmt: skip
    """Gradients of q `[C, DIM]`, and of the first layer's blocks for behaviour and product.

    Sums of the latter are kept in registers with `HOLD`, else in memory: exact products take all
    registers.

    The gradient G of a candidate's matrix (Wk - Wd) + Wp diag(q) holds all: G itself, G diag(q),
    and the row sums of G * Wp, to which those through c are added.
    """
    later = load_later_layers(unit, D, H1, H2, DOT)
    program = tl.program_id(0)
    dims, inner = tl.arange(0, D), tl.arange(0, H1)
    tile = dims[:, None] * H1 + inner[None, :]
    slot = sums + program.to(tl.int64) * SIZE
    if HOLD:
        sum_behavior, sum_product = tl.zeros([D, H1], tl.float32), tl.zeros([D, H1], tl.float32)
    else:
        tl.store(slot + tile, tl.zeros([D, H1], tl.float32))
        tl.store(slot + D * H1 + tile, tl.zeros([D, H1], tl.float32))
        tl.debug_barrier()
    for place in range(tl.load(plan + program), tl.load(plan + program + 1)):
        candidate = tl.load(order + place)
        begin, end = tl.load(windows + 2 * candidate), tl.load(windows + 2 * candidate + 1)
        q, first, of_candidate = load_candidate(candidate, query, c, unit, DIM, D, H1, DOT)
        of_output = load_upstream(
            candidate, upstream, output, terms, num_candidates, DIM, D, SOFTMAX, MOMENTS
        )
        matrix = tl.zeros([D, H1], tl.float32)
        for start in range(begin, end, TILE):
            rows = start + tl.arange(0, TILE)
            valid = rows < end
            key = load_rows(behaviors, rows, valid, DIM, D).to(DOT)
            _, z1_gradient, _ = differentiate_keys(
                key, valid, first, of_candidate, unit, later, of_output, scale, (),
                D, H1, H2, KIND, SOFTMAX, MOMENTS, DOT, False,
            )  # fmt: skip
            matrix += tl.dot(tl.trans(key), z1_gradient.to(DOT), input_precision="ieee")
        # read again: held through the loop, they would spill registers
        row = matrix * tl.load(unit + D * H1 + tile)
        row += tl.load(unit + 2 * D * H1 + tile) * tl.load(c_gradient + place * H1 + inner)
        tl.store(query_gradient + candidate * DIM + dims, tl.sum(row, 1), mask=dims < DIM)
        if HOLD:
            sum_behavior += matrix
            sum_product += q[:, None] * matrix
        else:
            _add(slot + tile, matrix)
            _add(slot + D * H1 + tile, q[:, None] * matrix)
    if HOLD:
        tl.store(slot + tile, sum_behavior)
        tl.store(slot + D * H1 + tile, sum_product)
