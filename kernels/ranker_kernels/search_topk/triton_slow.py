"""Triton kernel of the search for groups that overflow the pad: exact, without any memory."""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.search_topk.triton_choice import LOWEST, float_of, mean_of, ordered
from ranker_kernels.search_topk.triton_scores import load_group, score_tile


@triton.jit
def _select_slowly(
    to, q, keys, bias, begin, lengths, head, present, positions, values, k,
    HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, HAS_BIAS: tl.constexpr, DOT: tl.constexpr, WITH_VALUES: tl.constexpr,
):  # fmt: skip
    """Writes the k highest of every row of a group.

    What is no number counts as the lowest, so that no position is left unwritten.
    """
    num_tiles = tl.cdiv(tl.max(lengths, 0), TILE)
    top = tl.full([ROWS], -float("inf"), tl.float32)
    for tile in range(num_tiles):
        score = score_tile(
            tile * TILE, q, keys, bias, begin, lengths, head,
            HEADS, DIM, D, TILE, HAS_BIAS, DOT, True,
        )  # fmt: skip
        top = tl.maximum(top, tl.max(score, 1))
    low = tl.full([ROWS], LOWEST, tl.int32)
    high = tl.where(present, ordered(top), low)
    above = tl.zeros([ROWS], tl.int32)
    while tl.max((low < high).to(tl.int32), 0) > 0:
        middle = mean_of(low, high)
        least = float_of(middle)[:, None]
        count = tl.zeros([ROWS], tl.int32)
        for tile in range(num_tiles):
            score = score_tile(
                tile * TILE, q, keys, bias, begin, lengths, head,
                HEADS, DIM, D, TILE, HAS_BIAS, DOT, True,
            )  # fmt: skip
            count += tl.sum((score >= least).to(tl.int32), 1)
        above = tl.where((count >= k) | (low == high), above, count)
        high = tl.where(count >= k, high, middle - 1)
        low = tl.where(count >= k, middle, low)
    exact = float_of(low)[:, None]
    # fewer than k scores are numbers
    exhausted = (low == LOWEST)[:, None]
    written = tl.zeros([ROWS], tl.int32)
    equals = tl.zeros([ROWS], tl.int32)
    for tile in range(num_tiles):
        score = score_tile(
            tile * TILE, q, keys, bias, begin, lengths, head,
            HEADS, DIM, D, TILE, HAS_BIAS, DOT, True,
        )  # fmt: skip
        inside = tl.arange(0, TILE)[None, :] < (lengths - tile * TILE)[:, None]
        none = exhausted & inside & ((score > exact) == 0)
        equal = ((score == exact) | none).to(tl.int32)
        early = equals[:, None] + tl.cumsum(equal, 1) <= (k - above)[:, None]
        keep = ((score > exact) | ((equal > 0) & early)) & present[:, None]
        slot = written[:, None] + tl.cumsum(keep.to(tl.int32), 1) - 1
        at = to[:, None] * k + slot
        place = tile * TILE + tl.arange(0, TILE)[None, :] + tl.zeros([ROWS, 1], tl.int32)
        tl.store(positions + at, place, mask=keep & (slot < k))
        if WITH_VALUES:
            tl.store(values + at, score, mask=keep & (slot < k))
        written += tl.sum(keep.to(tl.int32), 1)
        equals += tl.sum(equal, 1)


# an argument of 1 would be a constant, which loops could not change
@triton.jit(do_not_specialize=["num_candidates", "k"])
def search_slowly(
    query, keys, bias, codes, order, firsts, lasts, lost, counters, positions, values,
    num_candidates, k,
    HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, HAS_BIAS: tl.constexpr, DOT: tl.constexpr, WITH_VALUES: tl.constexpr,
    ALL: tl.constexpr,
):  # fmt: skip
    """Does the groups that `search` lost again; a window is scored for every bit of a score.

    With `ALL` it does all groups of both kinds: no tile fitted, and `search` was left out.
    """
    head = tl.arange(0, ROWS) % HEADS
    of_first_kind = tl.load(counters)
    num_groups = tl.load(counters + 4)
    if ALL:
        num_groups = of_first_kind + tl.load(counters + 1)
    for turn in range(tl.program_id(0), num_groups, tl.num_programs(0)):
        if ALL:
            group = tl.where(turn < of_first_kind, turn, num_candidates + turn - of_first_kind)
        else:
            group = tl.load(lost + turn)
        begin, lengths, to, q = load_group(
            group, query, codes, order, firsts, lasts, HEADS, DIM, D, ROWS, DOT
        )
        _select_slowly(
            to, q, keys, bias, begin, lengths, head, lengths > k, positions, values, k,
            HEADS, DIM, D, ROWS, TILE, HAS_BIAS, DOT, WITH_VALUES,
        )  # fmt: skip
