"""Triton kernel that makes one selection of those of the heads: `merge.round_robin` on a GPU."""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.search_topk.triton_choice import ordered

HIGHEST = tl.constexpr(0x7FFFFFFF)
LAST = tl.constexpr(0x7FFFFFFF7FFFFFFF)


# an argument of 1 would be a constant, which loops could not change
@triton.jit(do_not_specialize=["k"])
def merge(
    positions, values, windows, index, k,
    HEADS: tl.constexpr, HP: tl.constexpr, KP: tl.constexpr,
):  # fmt: skip
    """Writes the index `[C, k]`, ascending, from the heads' selections `[C, H, k]`, in any order.

    A window with at most k behaviours is selected whole, with -1 behind it.
    """
    candidate = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(windows + 2 * candidate), tl.load(windows + 2 * candidate + 1)
    rank = tl.arange(0, KP)
    index += candidate * k
    positions += candidate * HEADS * k
    if end - begin <= k:
        tl.store(index + rank, tl.where(rank < end - begin, begin + rank, -1), mask=rank < k)
    elif HEADS == 1:
        position = tl.load(positions + rank, mask=rank < k, other=HIGHEST)
        tl.store(index + rank, begin + tl.sort(position), mask=rank < k)
    else:
        head = tl.arange(0, HP)[:, None]
        exists = (head < HEADS) & (rank < k)[None, :]
        at = head * k + rank[None, :]
        position = tl.load(positions + at, mask=exists, other=0).to(tl.int64)
        value = tl.load(values + candidate * HEADS * k + at, mask=exists, other=0.0)
        # highest first, equal ones by position
        best = ((-1 - ordered(value)).to(tl.int64) << 32) | position
        best = tl.sort(tl.where(exists, best, LAST), 1) & 0xFFFFFFFF
        # by position and, within it, by the turn of the walk
        turn = rank[None, :] * HEADS + head
        visit = tl.sort(tl.reshape(tl.where(exists, (best << 32) | turn, LAST), [HP * KP]))
        place = tl.arange(0, HP * KP)
        position, turn = (visit >> 32).to(tl.int32), (visit & 0xFFFFFFFF).to(tl.int32)
        before = tl.gather(position, tl.maximum(place - 1, 0), 0)
        # the walk meets a position at its first turn
        turn = tl.where((place == 0) | (position != before), turn, HIGHEST)
        low, high = k - 1, HEADS * k - 1
        while low < high:
            middle = (low + high) >> 1
            enough = tl.sum((turn <= middle).to(tl.int32), 0) >= k
            low = tl.where(enough, low, middle + 1)
            high = tl.where(enough, middle, high)
        keep = turn <= low
        slot = tl.cumsum(keep.to(tl.int32), 0) - 1
        tl.store(index + slot, begin + position, mask=keep & (slot < k))
