"""Triton kernels of the search: scores of a window, and its exact top k.

`score` walks over tiles of keys; candidates with the same window are scored together, so that they
share the reads. `select` finds the k-th highest score of a row digit by digit, eight bits at a time
from the top, and writes the positions above it and the first ones at it: exact, deterministic, for
any length. The scores of a candidate lie head by head, [H, L], the candidates one behind the other.

Products take 16-bit operands on tensor cores, float32 ones exactly ("ieee"). Offsets into keys and
scores are 64-bit.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.triton_kernels import load_rows

BINS = tl.constexpr(256)


@triton.jit
def score(
    query, keys, bias, windows, score_starts, group_begins, group_ends, tile_groups, tile_places,
    scores,
    HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, HAS_BIAS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Writes the scores of a group of candidates for a tile of their window.

    A group's candidates `[begin, end)` have one window; row r of `ROWS` is head r % HEADS of
    candidate r / HEADS of them. Program i takes tile `tile_places[i]` of group `tile_groups[i]`.
    """
    program = tl.program_id(0)
    group = tl.load(tile_groups + program)
    first, last = tl.load(group_begins + group), tl.load(group_ends + group)
    begin, end = tl.load(windows + 2 * first), tl.load(windows + 2 * first + 1)
    start = begin + tl.load(tile_places + program) * TILE
    # 64-bit bases and 32-bit offsets within the tile: wide offsets would take all registers
    row, step = tl.arange(0, ROWS), tl.arange(0, TILE)
    candidate, head = row // HEADS, row % HEADS
    present = candidate < last - first
    valid = step < end - start
    q = load_rows(query + first * (HEADS * DIM), row, present, DIM, D).to(DOT)
    key = load_rows(keys + start * DIM, step, valid, DIM, D).to(DOT)
    value = tl.dot(q, tl.trans(key), input_precision="ieee")
    inside = present[:, None] & valid[None, :]
    if HAS_BIAS:
        value += tl.load(
            bias + start * HEADS + step[None, :] * HEADS + head[:, None], mask=inside, other=0.0
        ).to(tl.float32)
    # rows of one window lie one behind the other
    place = tl.load(score_starts + first) + row * (end - begin) + (start - begin)
    tl.store(scores + place[:, None] + step[None, :], value, mask=inside)


@triton.jit
def _ordered(value):
    """Returns numbers in [0, 2^32) whose order is that of the floats; minus zero equals zero."""
    bits = (value + 0.0).to(tl.int32, bitcast=True)
    signed = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    return signed + 0x80000000


@triton.jit
def select(
    scores, row_starts, lengths, positions, values, k,
    TILE: tl.constexpr,
):  # fmt: skip
    """Writes the positions `[R, k]` of the k highest of each row, ascending, and their scores.

    Of equal scores the first count. A row of at most k scores is written whole; what is behind it
    stays as it was.
    """
    row = tl.program_id(0).to(tl.int64)
    begin, length = tl.load(row_starts + row), tl.load(lengths + row)
    bins, steps = tl.arange(0, BINS), tl.arange(0, TILE)
    # the k-th highest number, from its highest digit to its lowest
    prefix = tl.zeros([], tl.int64)
    missing = tl.minimum(k, length)
    for digit in tl.static_range(4):
        shift = 24 - 8 * digit
        counts = tl.zeros([BINS], tl.int64)
        for start in range(0, length, TILE):
            valid = start + steps < length
            number = _ordered(tl.load(scores + begin + start + steps, mask=valid, other=0.0))
            match = valid & ((number >> (shift + 8)) == prefix)
            # what does not match is counted as 0, and taken away again
            bin_of = tl.where(match, (number >> shift) & 255, 0).to(tl.int32)
            others = TILE - tl.sum(match.to(tl.int64), 0)
            counts += tl.histogram(bin_of, BINS) - tl.where(bins == 0, others, 0)
        reached = tl.sum(counts, 0) - tl.cumsum(counts, 0) + counts  # this digit or a higher one
        found = tl.sum((reached >= missing).to(tl.int64), 0) - 1
        above = tl.sum(tl.where(bins > found, counts, 0), 0)
        missing -= above
        prefix = (prefix << 8) | found
    written = tl.zeros([], tl.int64)
    equals = tl.zeros([], tl.int64)
    for start in range(0, length, TILE):
        valid = start + steps < length
        value = tl.load(scores + begin + start + steps, mask=valid, other=0.0)
        number = _ordered(value)
        equal = (valid & (number == prefix)).to(tl.int64)
        early = equals + tl.cumsum(equal, 0) <= missing
        keep = valid & ((number > prefix) | ((equal > 0) & early))
        place = written + tl.cumsum(keep.to(tl.int64), 0) - 1
        tl.store(positions + row * k + place, (start + steps).to(tl.int64), mask=keep)
        tl.store(values + row * k + place, value, mask=keep)
        written += tl.sum(keep.to(tl.int64), 0)
        equals += tl.sum(equal, 0)
