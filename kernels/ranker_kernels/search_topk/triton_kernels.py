"""Triton kernels of the search: exact, and without a matrix of scores in memory.

`search` finds the k highest scores of every row, a head of a candidate; candidates that look at
nearly the same behaviours are a group (`triton_groups.py`), and share the reads. A program takes
one group after the other and scores its window twice, since a product on tensor cores costs less
than moving its result:

1. the highest score of each of TILE residues of the position is kept in registers; the k-th highest
   of these TILE numbers is no more than the k-th highest score: a bound;
2. what is not below the bound, a little more than k scores, is written to a scratch pad that stays
   in cache, pair by pair, since neighbours lie in one thread. Each of CLASSES residues of the
   pair has a part of the pad and counts for itself, so threads need not speak with each other.

Then the k highest are chosen among these, of equal ones the first. Where a part overflows (scores
that rise and fall with the period of a tile, many equals above the bound), the group goes to
`search_slowly`, which finds the k-th highest score by counting, bit by bit, without any memory.

Products take 16-bit operands on tensor cores, float32 ones exactly ("ieee"). Offsets into keys are
64-bit, places within a window 32-bit.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.search_topk.triton_choice import (
    HIGHEST,
    LANES,
    STEPS,
    choose_highest,
    find_bound,
    float_of,
)
from ranker_kernels.search_topk.triton_scores import load_group, score_tile


@triton.jit
def _raise(
    highest, first, last, q, keys, bias, begin, lengths, head,
    HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
    STRIDE: tl.constexpr, HAS_BIAS: tl.constexpr, DOT: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Raises the highest scores `[ROWS, TILE]` of each residue of the place by those of tiles."""
    for tile in range(first, last, STRIDE):
        score = score_tile(
            tile * TILE, q, keys, bias, begin, lengths, head,
            HEADS, DIM, D, TILE, HAS_BIAS, DOT, MASKED,
        )  # fmt: skip
        highest = tl.maximum(highest, score)
    return highest


@triton.jit
def _store_pairs(entries, left, right, place, keep, NATIVE: tl.constexpr):
    """Writes some of a tile's pairs and their places, to four words each.

    A store of Triton's would move the whole tile through shared memory first, so that threads write
    side by side; but hardly anything is written.
    """
    left, right = left.to(tl.int32, bitcast=True), right.to(tl.int32, bitcast=True)
    if NATIVE:
        tl.inline_asm_elementwise(
            """
            {
                .reg .pred wanted;
                setp.ne.s32 wanted, $5, 0;
                @wanted st.global.v2.b32 [$1], {$2, $3};
                @wanted st.global.b32 [$1 + 8], $4;
                mov.u32 $0, 0;
            }
            """,
            "=r,l,r,r,r,r",
            [entries.to(tl.int64), left, right, place, keep.to(tl.int32)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
    else:
        tl.store(entries, left, mask=keep)
        tl.store(entries + 1, right, mask=keep)
        tl.store(entries + 2, place, mask=keep)


@triton.jit
def _collect(
    count, since, first, last, least, above, pad, q, keys, bias, begin, lengths, head,
    HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, SLOTS: tl.constexpr, HAS_BIAS: tl.constexpr, DOT: tl.constexpr,
    MASKED: tl.constexpr, NATIVE: tl.constexpr,
):  # fmt: skip
    """Writes pairs with a score that is at `least` the bound to the pad `[ROWS, CLASSES, SLOTS]`.

    Returns how many of each class there are, `[ROWS, BLOCKS, LANES]`, and the tile since which a
    class that is a quarter full takes only what is `above` the bound: of equal scores, of which
    there may be any number, the first count. A full class takes no more.
    """
    BLOCKS: tl.constexpr = TILE // (2 * STEPS * LANES)
    row = tl.arange(0, ROWS)[:, None, None]
    block = tl.arange(0, BLOCKS)[None, :, None]
    lane = tl.arange(0, LANES)[None, None, :]
    part = pad + ((row * BLOCKS + block) * LANES + lane) * (4 * SLOTS)
    step = tl.arange(0, STEPS)[None, None, :, None]
    pair_place = 2 * ((block[:, :, None, :] * STEPS + step) * LANES + lane[:, :, None, :])
    for tile in range(first, last):
        place = tile * TILE
        score = score_tile(
            place, q, keys, bias, begin, lengths, head,
            HEADS, DIM, D, TILE, HAS_BIAS, DOT, MASKED,
        )  # fmt: skip
        crowded = count >= SLOTS // 4
        since = tl.where(crowded, tl.minimum(since, tile), since)
        accepted = tl.where(crowded, above, least)
        # nothing is as high as NaN, infinity included
        accepted = tl.where(count > SLOTS - STEPS, float("nan"), accepted)
        left, right = tl.split(tl.reshape(score, [ROWS, BLOCKS, STEPS, LANES, 2]))
        keep = tl.maximum(left, right) >= accepted[:, :, None, :]
        # eight digits of four bits; multiplied by 0x11111111, each becomes the sum up to it
        sums = tl.sum(keep.to(tl.int32) << (4 * step), 2) * 0x11111111
        rank = (sums[:, :, None, :] >> (4 * step)) & 15
        entries = (part + (4 * count - 4))[:, :, None, :] + 4 * rank
        _store_pairs(entries, left, right, place + pair_place, keep, NATIVE)
        count += (sums >> 28) & 15
    return count, since


# an argument of 1 would be a constant, which loops could not change
@triton.jit(do_not_specialize=["kind", "num_candidates", "k"])
def search(
    query, keys, bias, codes, order, firsts, lasts, lost, counters, pad, notes, places,
    positions, values, kind, num_candidates, k,
    HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, SLOTS: tl.constexpr, PAIRS: tl.constexpr, STRIDE: tl.constexpr,
    CHUNK: tl.constexpr, HAS_BIAS: tl.constexpr, DOT: tl.constexpr, WITH_VALUES: tl.constexpr,
    NATIVE: tl.constexpr,
):  # fmt: skip
    """Writes the places `[C, H, k]` in the window of the k highest scores, in any order.

    With `WITH_VALUES` also the scores. Row r of a group is head r % HEADS of candidate r / HEADS of
    it. The bound comes from every `STRIDE`-th tile. `counters` has the number of groups of both
    kinds, how many of either are taken, and the number of groups in `lost`, which `search_slowly`
    does again.
    """
    CLASSES: tl.constexpr = TILE // (2 * STEPS)
    program = tl.program_id(0).to(tl.int64)
    pad += program * (4 * ROWS * CLASSES * SLOTS)
    notes += program * (ROWS * (CLASSES + 2))
    closed, bounds = notes + ROWS * CLASSES, notes + ROWS * (CLASSES + 1)
    places += program * ROWS
    row = tl.arange(0, ROWS)
    head = row % HEADS
    num_groups = tl.load(counters + kind)
    turn = tl.atomic_add(counters + 2 + kind, 1)
    while turn < num_groups:
        group = kind * num_candidates + turn
        num_rows = (tl.load(lasts + group) - tl.load(firsts + group)) * HEADS
        begin, lengths, to, q = load_group(
            group, query, codes, order, firsts, lasts, HEADS, DIM, D, ROWS, DOT
        )
        present = lengths > k
        longest = tl.max(lengths, 0)
        # tiles that all windows contain
        num_full = tl.min(tl.where(present, lengths, longest), 0) // TILE
        num_tiles = tl.cdiv(longest, TILE)
        highest = tl.full([ROWS, TILE], -float("inf"), tl.float32)
        highest = _raise(
            highest, 0, num_full, q, keys, bias, begin, lengths, head,
            HEADS, DIM, D, TILE, STRIDE, HAS_BIAS, DOT, False,
        )  # fmt: skip
        highest = _raise(
            highest, tl.cdiv(num_full, STRIDE) * STRIDE, num_tiles, q, keys, bias, begin, lengths,
            head, HEADS, DIM, D, TILE, STRIDE, HAS_BIAS, DOT, True,
        )  # fmt: skip
        bound = find_bound(highest, k, TILE)
        # a row that is not there takes nothing
        least = tl.where(present, float_of(bound), float("nan"))[:, None, None]
        above = tl.where(present, float_of(bound + 1), float("nan"))[:, None, None]
        count = tl.zeros([ROWS, CLASSES // LANES, LANES], tl.int32)
        since = count + HIGHEST
        # threads read what others wrote, in this turn and in the one before
        tl.debug_barrier()
        count, since = _collect(
            count, since, 0, num_full, least, above, pad, q, keys, bias, begin, lengths, head,
            HEADS, DIM, D, ROWS, TILE, SLOTS, HAS_BIAS, DOT, False, NATIVE,
        )  # fmt: skip
        count, since = _collect(
            count, since, num_full, num_tiles, least, above, pad, q, keys, bias, begin, lengths,
            head, HEADS, DIM, D, ROWS, TILE, SLOTS, HAS_BIAS, DOT, True, NATIVE,
        )  # fmt: skip
        tl.store(
            notes + row[:, None] * CLASSES + tl.arange(0, CLASSES)[None, :],
            tl.reshape(count, [ROWS, CLASSES]),
        )
        tl.store(closed + row, tl.min(tl.min(since, 2), 1))
        tl.store(bounds + row, bound)
        tl.store(places + row, tl.where(present, to, -1))
        tl.debug_barrier()
        missing = tl.zeros([], tl.int32)
        for some in range(0, num_rows, CHUNK):
            missing |= choose_highest(
                some, num_rows, pad, notes, closed, bounds, places, positions, values, k,
                TILE, SLOTS, PAIRS, CHUNK, WITH_VALUES,
            )  # fmt: skip
        if missing > 0:
            tl.store(lost + tl.atomic_add(counters + 4, 1), group)
        turn = tl.atomic_add(counters + 2 + kind, 1)
