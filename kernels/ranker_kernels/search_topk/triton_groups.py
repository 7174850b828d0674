"""Triton kernel that groups the candidates of the search, without waiting for the device."""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def _run_of(code):
    """Returns what candidates of one group agree in: the begin, and nearly the length."""
    begin = code >> 32
    length = (code & 0xFFFFFFFF) - begin
    # exponent and two bits: lengths in one group differ by a quarter at most
    return (begin << 32) | (length.to(tl.float32).to(tl.int32, bitcast=True) >> 21).to(tl.int64)


@triton.jit
def _bisect(codes, run, low, high, count, BEHIND: tl.constexpr):
    """Returns the first place in [low, high) whose run is not before, or is behind, the given."""
    left = count
    while left > 0:
        left = left >> 1
        middle = (low + high) >> 1
        other = _run_of(tl.load(codes + middle, mask=low < high, other=0))
        before = other < run
        if BEHIND:
            before = other <= run
        before = before & (low < high)
        low = tl.where(before, middle + 1, low)
        high = tl.where(before, high, middle)
    return low


# an argument of 1 would be a constant, which loops could not change
@triton.jit(do_not_specialize=["num_candidates", "k", "size", "few"])
def group(
    codes, firsts, lasts, counters, num_candidates, k, size, few,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Cuts the sorted windows into groups of at most `size` candidates with something to select.

    `codes[p]` is begin * 2^32 + end of the p-th window. Groups of at most `few` candidates go to
    the second half of `firsts` and `lasts` `[2, C]`, the others to the first; the first two
    `counters` count them, in no fixed order.
    """
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < num_candidates
    code = tl.load(codes + place, mask=inside, other=0)
    run = _run_of(code)
    # places behind the last search nothing
    bound = tl.full([BLOCK], 0, tl.int32) + num_candidates
    here = tl.minimum(place, bound)
    # one more round than bits: a range of one place takes a comparison, too
    start = _bisect(codes, run, tl.zeros([BLOCK], tl.int32), here, 2 * num_candidates, False)
    stop = _bisect(codes, run, here, bound, 2 * num_candidates, True)
    last = tl.minimum(place + size, stop)
    leads = inside & ((place - start) % size == 0)
    # the last of a group has its longest window
    tail = tl.load(codes + last - 1, mask=leads, other=0)
    leads = leads & ((tail & 0xFFFFFFFF) - (tail >> 32) > k)
    for kind in tl.static_range(2):
        mine = leads & ((last - place <= few) == (kind == 1))
        number = mine.to(tl.int32)
        base = tl.atomic_add(counters + kind, tl.sum(number, 0))
        slot = kind * num_candidates + base + tl.cumsum(number, 0) - 1
        tl.store(firsts + slot, place, mask=mine)
        tl.store(lasts + slot, last, mask=mine)
