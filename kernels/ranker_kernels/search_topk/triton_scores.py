"""Scores of a group of candidates, for all Triton kernels of the search."""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.triton_kernels import load_rows


@triton.jit
def load_group(
    group, query, codes, order, firsts, lasts,
    HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Returns the begin of the window, and of each row its length, place in `[C, H]` and query."""
    first, last = tl.load(firsts + group), tl.load(lasts + group)
    begin = tl.load(codes + first) >> 32
    row = tl.arange(0, ROWS)
    at = first + row // HEADS
    given = at < last
    end = tl.load(codes + at, mask=given, other=0) & 0xFFFFFFFF
    to = tl.load(order + at, mask=given, other=0) * HEADS + row % HEADS
    q = load_rows(query, to, given, DIM, D).to(DOT)
    return begin, tl.where(given, end - begin, 0).to(tl.int32), to, q


@triton.jit
def score_tile(
    place, q, keys, bias, begin, lengths, head,
    HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
    HAS_BIAS: tl.constexpr, DOT: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Returns the scores `[ROWS, TILE]` from `place` of the window on, -inf outside.

    Without `MASKED` there is no outside. A score is the same to the bit each time.
    """
    step = tl.arange(0, TILE)
    start = begin + place
    valid = step < TILE
    if MASKED:
        valid = step < tl.max(lengths, 0) - place
    key = load_rows(keys + start * DIM, step, valid, DIM, D).to(DOT)
    score = tl.dot(q, tl.trans(key), input_precision="ieee")
    if HAS_BIAS:
        at = bias + start * HEADS + step[None, :] * HEADS + head[:, None]
        score += tl.load(at, mask=valid[None, :], other=0.0).to(tl.float32)
    if MASKED:
        score = tl.where(step[None, :] < (lengths - place)[:, None], score, -float("inf"))
    return score
