"""Triton kernels of the mean and variance of a hidden layer over all pairs of a batch.

A program goes over its candidates as the attention's forward does and keeps, of every unit, the
mean and the sum of squared deviations from it. A tile's own mean comes first, and sets are merged
as Chan et al. do (Updating Formulae and a Pairwise Algorithm for Computing Sample Variances,
1979): the difference of two large sums would lose small variances.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.din_attention.triton_kernels import (
    load_candidate,
    load_later_layers,
    pass_first_layer,
    pass_second_layer,
)
from ranker_kernels.triton_kernels import load_rows


@triton.jit
def forward_moments(
    query, behaviors, windows, c, unit, plan, counts, parts,
    DIM: tl.constexpr, D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, TILE: tl.constexpr,
    KIND: tl.constexpr, MOMENTS: tl.constexpr, DOT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Writes each program's pairs `[PROGRAMS]`, means and squares `[PROGRAMS, 2, WIDTH]`.

    They are those of z1 or z2, by `MOMENTS`.
    """
    weight, bias, _, _, _, _, _ = load_later_layers(unit, D, H1, H2, DOT)
    program = tl.program_id(0)
    mean, squares = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)
    pairs = 0.0
    for candidate in range(tl.load(plan + program), tl.load(plan + program + 1)):
        begin, end = tl.load(windows + 2 * candidate), tl.load(windows + 2 * candidate + 1)
        _q, first, of_candidate = load_candidate(candidate, query, c, unit, DIM, D, H1, DOT)
        for start in range(begin, end, TILE):
            rows = start + tl.arange(0, TILE)
            valid = rows < end
            key = load_rows(behaviors, rows, valid, DIM, D).to(DOT)
            z = pass_first_layer(key, first, of_candidate)
            if MOMENTS == 2:
                # the bias only moves the mean, below
                _h1, z = pass_second_layer(z, unit, weight, 0.0, D, H1, H2, KIND, DOT)
            size = tl.minimum(end - start, TILE).to(tl.float32)
            own = tl.sum(tl.where(valid[:, None], z, 0.0), 0) / size
            deviation = tl.where(valid[:, None], z - own, 0.0)
            share = size / (pairs + size)
            step = own - mean
            squares += tl.sum(deviation * deviation, 0) + step * step * (pairs * share)
            mean += step * share
            pairs += size
    units = tl.arange(0, WIDTH)
    if MOMENTS == 2:
        mean += bias
    tl.store(counts + program, pairs)
    tl.store(parts + program * (2 * WIDTH) + units, mean)
    tl.store(parts + program * (2 * WIDTH) + WIDTH + units, squares)


@triton.jit
def merge_moments(
    counts, parts, mean, variance,
    HIDDEN: tl.constexpr, WIDTH: tl.constexpr, PROGRAMS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes mean and biased variance `[HIDDEN]` of all programs' pairs, in their order."""
    units = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total, center = tl.zeros([ROWS], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, PROGRAMS, ROWS):
        count, means, _ = _load_parts(counts, parts, start, units, WIDTH, PROGRAMS, ROWS)
        total += count
        center += tl.sum(means * count[:, None], 0)
    # zeros if there is no pair
    pairs = tl.maximum(tl.sum(total, 0), 1.0)
    center = center / pairs
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, PROGRAMS, ROWS):
        count, means, own = _load_parts(counts, parts, start, units, WIDTH, PROGRAMS, ROWS)
        away = means - center
        squares += tl.sum(own + away * away * count[:, None], 0)
    tl.store(mean + units, center, mask=units < HIDDEN)
    tl.store(variance + units, squares / pairs, mask=units < HIDDEN)


@triton.jit
def _load_parts(
    counts, parts, start, units, WIDTH: tl.constexpr, PROGRAMS: tl.constexpr, ROWS: tl.constexpr
):
    """Loads `ROWS` programs' pairs, and means and squares `[ROWS, BLOCK]`."""
    program = start + tl.arange(0, ROWS)
    exists = program < PROGRAMS
    at = parts + program[:, None] * (2 * WIDTH) + units[None, :]
    mask = exists[:, None] & (units < WIDTH)[None, :]
    count = tl.load(counts + program, mask=exists, other=0.0)
    means = tl.load(at, mask=mask, other=0.0)
    return count, means, tl.load(at + WIDTH, mask=mask, other=0.0)
