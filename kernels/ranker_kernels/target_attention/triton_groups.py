"""Triton kernels that group candidates and find their work, without waiting for the device.

`members` `[C]` lists candidates that have something to look at, in the order of their begins.
`groups` `[7, C + 1]` has for each group where its members begin (and behind the last group, where
all end), its first behaviour and one behind its last, how far groups up to it reach, where its
items and its parts begin (again with a last bound); and as scratch the end of each member's
window. An item is a piece of a group's behaviours; a group of several pieces has a part for each.
`counts` `[3]` are the numbers of groups and items, and the length of a piece.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def _larger(left, right):
    return tl.maximum(left, right)


@triton.jit
def _list_members(
    windows, order, members, groups, num_candidates, SIZE: tl.constexpr, BLOCK: tl.constexpr
):
    """Lists members, and cuts chains of windows into groups of `SIZE`; returns their number."""
    stride = num_candidates + 1
    lane = tl.arange(0, BLOCK)
    zero = tl.full([], 0, tl.int64)
    listed, found, reached, leader = zero, zero, zero, zero
    for start in range(0, num_candidates, BLOCK):
        place = start + lane
        inside = place < num_candidates
        candidate = tl.load(order + place, mask=inside, other=0)
        begin = tl.load(windows + 2 * candidate, mask=inside, other=0)
        end = tl.load(windows + 2 * candidate + 1, mask=inside, other=0)
        before = tl.load(order + place - 1, mask=inside & (place > 0), other=0)
        end_before = tl.load(windows + 2 * before + 1, mask=inside & (place > 0), other=0)
        past = tl.maximum(reached, tl.associative_scan(end_before, 0, _larger))
        some = end > begin
        slot = listed + tl.cumsum(some.to(tl.int64), 0) - 1
        chain = tl.where(some & (begin >= past), slot, 0)
        chain = tl.maximum(leader, tl.associative_scan(chain, 0, _larger))
        leads = some & ((slot - chain) % SIZE == 0)
        group = found + tl.cumsum(leads.to(tl.int64), 0) - 1
        tl.store(members + slot, candidate, mask=some)
        tl.store(groups + 6 * stride + slot, end, mask=some)
        tl.store(groups + group, slot, mask=leads)
        tl.store(groups + stride + group, begin, mask=leads)
        reached = tl.maximum(reached, tl.max(end, 0))
        leader = tl.maximum(leader, tl.max(chain, 0))
        listed += tl.sum(some.to(tl.int64), 0)
        found += tl.sum(leads.to(tl.int64), 0)
    tl.store(groups + found, listed)
    # other threads read it next
    tl.debug_barrier()
    return found


@triton.jit
def _measure(groups, stride, found, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Finds how far each group reaches; returns the sum of their lengths."""
    lane = tl.arange(0, BLOCK)
    reached, total = tl.full([], 0, tl.int64), tl.full([], 0, tl.int64)
    for start in range(0, found, BLOCK):
        group = start + lane
        inside = group < found
        first = tl.load(groups + group, mask=inside, other=0)
        last = tl.load(groups + group + 1, mask=inside, other=0)
        high = tl.zeros([BLOCK], tl.int64)
        for member in range(SIZE):
            at = groups + 6 * stride + first + member
            high = tl.maximum(high, tl.load(at, mask=first + member < last, other=0))
        low = tl.load(groups + stride + group, mask=inside, other=0)
        so_far = tl.maximum(reached, tl.associative_scan(high, 0, _larger))
        tl.store(groups + 2 * stride + group, high, mask=inside)
        tl.store(groups + 3 * stride + group, so_far, mask=inside)
        reached = tl.maximum(reached, tl.max(high, 0))
        total += tl.sum(high - low, 0)
    tl.debug_barrier()
    return total


@triton.jit(do_not_specialize=["num_candidates", "max_pieces"])
def group_windows(
    windows, order, members, groups, items, counts, num_candidates, max_pieces,
    SIZE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Groups windows that form a chain, each touching the last; one program does it all.

    Pieces have at least `PIECE` behaviours, and more where there would be more than `max_pieces`
    besides one for each group.
    """
    stride = num_candidates + 1
    lane = tl.arange(0, BLOCK)
    found = _list_members(windows, order, members, groups, num_candidates, SIZE, BLOCK)
    total = _measure(groups, stride, found, SIZE, BLOCK)
    piece = tl.maximum(PIECE, tl.cdiv(total, max_pieces))
    num_items, num_parts = tl.full([], 0, tl.int64), tl.full([], 0, tl.int64)
    for start in range(0, found, BLOCK):
        group = start + lane
        inside = group < found
        low = tl.load(groups + stride + group, mask=inside, other=0)
        high = tl.load(groups + 2 * stride + group, mask=inside, other=0)
        count = tl.cdiv(high - low, piece)
        parts = tl.where(count > 1, count, 0)
        first = num_items + tl.cumsum(count, 0) - count
        tl.store(groups + 4 * stride + group, first, mask=inside)
        tl.store(groups + 5 * stride + group, num_parts + tl.cumsum(parts, 0) - parts, mask=inside)
        for place in range(0, tl.max(count, 0)):
            tl.store(items + first + place, group, mask=place < count)
        num_items += tl.sum(count, 0)
        num_parts += tl.sum(parts, 0)
    tl.store(groups + 4 * stride + found, num_items)
    tl.store(groups + 5 * stride + found, num_parts)
    tl.store(counts, found)
    tl.store(counts + 1, num_items)
    tl.store(counts + 2, piece)


@triton.jit
def _first_above(values, limit, low, high, exists):
    """Returns the first places in [low, high) whose value is above the limit; values ascend."""
    left = tl.max(high - low, 0)
    # one more round than bits: a range of one place takes a comparison, too
    left = 2 * left
    while left > 0:
        left = left // 2
        middle = (low + high) // 2
        searching = exists & (low < high)
        above = tl.load(values + middle, mask=searching, other=0) > limit
        low = tl.where(searching & (above == 0), middle + 1, low)
        high = tl.where(searching & above, middle, high)
    return low


@triton.jit(do_not_specialize=["num_candidates", "num_tiles"])
def locate_groups(
    groups, counts, first_groups, last_groups, num_candidates, num_tiles,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Finds for each tile of behaviours the groups, first to last, that contain all it sees."""
    stride = num_candidates + 1
    tile = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = tile < num_tiles
    nothing = tl.zeros([BLOCK], tl.int64)
    found = nothing + tl.load(counts)
    first = _first_above(groups + 3 * stride, tile * TILE, nothing, found, exists)
    last = _first_above(groups + stride, tile * TILE + TILE - 1, nothing, found, exists)
    tl.store(first_groups + tile, first, mask=exists)
    tl.store(last_groups + tile, last, mask=exists)
