"""Triton kernel that adds up what the programs of a backward leave, and writes it as gradients.

`sums` `[PROGRAMS, SIZE]` has of each program, padded to powers of two: the gradients of the first
layer's blocks for behaviour, product and candidate, each `[D, H1]`; of W2 `[H2, H1]`; of b1 and
the first alpha, and sums of Dice's g and g s; of b2, the score weight and the second alpha, and
again such sums; of the last bias. Dice's s is (z - mean) * rate, and g its gradient:
ds = -rate dmean - s rate^2 / 2 dvariance.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.din_attention.triton_kernels import DICE, SIGMOID


@triton.jit
def _total(
    sums, place, inside, SIZE: tl.constexpr, PROGRAMS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Returns the sum over programs at `BLOCK` places, in their order."""
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, PROGRAMS, ROWS):
        program = start + tl.arange(0, ROWS)
        mask = (program < PROGRAMS)[:, None] & inside[None, :]
        at = sums + program[:, None] * SIZE + place[None, :]
        total += tl.sum(tl.load(at, mask=mask, other=0.0), 0)
    return total


@triton.jit
def _store_activation(
    total, place, rates, alpha, mean, variance,
    HIDDEN: tl.constexpr, WIDTH: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of a layer's alpha and moments, as far as the activation has them."""
    if KIND != SIGMOID:
        tl.store(alpha + place, total, mask=(place >= 0) & (place < HIDDEN))
    if KIND == DICE:
        unit = place - WIDTH
        inside = (unit >= 0) & (unit < HIDDEN)
        rate = tl.load(rates + unit, mask=inside, other=0.0)
        tl.store(mean + unit, -rate * total, mask=inside)
        unit -= WIDTH
        inside = (unit >= 0) & (unit < HIDDEN)
        rate = tl.load(rates + unit, mask=inside, other=0.0)
        tl.store(variance + unit, -0.5 * rate * rate * total, mask=inside)


@triton.jit
def add_sums(
    sums, unit, weight1, weight2, weight3, bias1, bias2, bias3, alpha1, alpha2,
    mean1, variance1, mean2, variance2,
    DIM: tl.constexpr, D: tl.constexpr, HIDDEN1: tl.constexpr, H1: tl.constexpr,
    HIDDEN2: tl.constexpr, H2: tl.constexpr, SIZE: tl.constexpr, KIND: tl.constexpr,
    MOMENTS: tl.constexpr, PROGRAMS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of all that there is; the first programs write that of W1."""
    first_blocks: tl.constexpr = D * H1 // BLOCK
    program = tl.program_id(0)
    if program < first_blocks:
        place = program * BLOCK + tl.arange(0, BLOCK)
        dim, column = place // H1, place % H1
        inside = (dim < DIM) & (column < HIDDEN1)
        behavior = _total(sums, place, inside, SIZE, PROGRAMS, ROWS, BLOCK)
        product = _total(sums + D * H1, place, inside, SIZE, PROGRAMS, ROWS, BLOCK)
        candidate = _total(sums + 2 * D * H1, place, inside, SIZE, PROGRAMS, ROWS, BLOCK)
        to = weight1 + column * (4 * DIM) + dim
        tl.store(to, candidate, mask=inside)
        tl.store(to + DIM, behavior, mask=inside)
        tl.store(to + 2 * DIM, candidate - behavior, mask=inside)
        tl.store(to + 3 * DIM, product, mask=inside)
    else:
        place = (program - first_blocks) * BLOCK + tl.arange(0, BLOCK)
        inside = place < SIZE - 3 * D * H1
        total = _total(sums + 3 * D * H1, place, inside, SIZE, PROGRAMS, ROWS, BLOCK)
        row, column = place // H1, place % H1
        # see `triton_prepare.py`; rates follow alphas
        rates1 = unit + 3 * D * H1 + H2 * H1 + H1
        rates2 = rates1 + 2 * H1 + 3 * H2
        rest = place - H2 * H1
        tl.store(bias1 + rest, total, mask=(rest >= 0) & (rest < HIDDEN1))
        rest2 = rest - 4 * H1
        if MOMENTS != 1:
            inside = (row < HIDDEN2) & (column < HIDDEN1)
            tl.store(weight2 + row * HIDDEN1 + column, total, mask=inside)
            _store_activation(total, rest - H1, rates1, alpha1, mean1, variance1, HIDDEN1, H1, KIND)
            tl.store(bias2 + rest2, total, mask=(rest2 >= 0) & (rest2 < HIDDEN2))
        if MOMENTS == 0:
            rest3 = rest2 - H2
            tl.store(weight3 + rest3, total, mask=(rest3 >= 0) & (rest3 < HIDDEN2))
            _store_activation(
                total, rest3 - H2, rates2, alpha2, mean2, variance2, HIDDEN2, H2, KIND
            )
            tl.store(bias3 + rest3 - 4 * H2, total, mask=rest3 == 4 * H2)
