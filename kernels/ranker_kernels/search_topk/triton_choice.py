"""What is chosen on chip: a bound below the k-th highest score, and the k highest of a pad."""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

# pairs of a class within a tile, and classes side by side: as tensor cores lay out their result,
# a thread has all eight pairs of a class
STEPS = tl.constexpr(8)
LANES = tl.constexpr(4)
# the image of the lowest float in the order of the floats, and the bits of minus infinity
LOWEST = tl.constexpr(-2139095040)
MINUS_INFINITY = tl.constexpr(-8388608)
HIGHEST = tl.constexpr(0x7FFFFFFF)
# halvings of the bound: the rest of its 32 bits would not spare a score in a thousand
HALVINGS = tl.constexpr(16)


@triton.jit
def ordered(value):
    """Returns int32 numbers in the order of the floats; minus zero equals zero."""
    bits = (value + 0.0).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def float_of(number):
    """Returns the floats that `ordered` made the numbers of."""
    return tl.where(number < 0, number ^ 0x7FFFFFFF, number).to(tl.float32, bitcast=True)


@triton.jit
def mean_of(low, high):
    """Returns the mean, rounded up, without overflow."""
    return (low | high) - ((low ^ high) >> 1)


@triton.jit
def find_bound(highest, k, TILE: tl.constexpr):
    """Returns a number that at least k scores of each row are not below, for `ordered`."""
    number = ordered(highest)
    low, high = tl.min(number, 1), tl.max(number, 1)
    if k > TILE:
        low = tl.full(low.shape, LOWEST, tl.int32)
    for _ in range(HALVINGS):
        middle = mean_of(low, high)
        enough = tl.sum((number >= middle[:, None]).to(tl.int32), 1) >= k
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle - 1)
    return tl.maximum(low, LOWEST)


@triton.jit
def choose_highest(
    first, num_rows, pad, counts, closed, bounds, places, positions, values, k,
    TILE: tl.constexpr, SLOTS: tl.constexpr, PAIRS: tl.constexpr, CHUNK: tl.constexpr,
    WITH_VALUES: tl.constexpr,
):  # fmt: skip
    """Writes the k highest of `CHUNK` rows of the pad, in any order.

    A row has at most `PAIRS` pairs, fewer than its classes have room for together.

    Returns whether something was missing in the pad, and what was written is of no worth.
    """
    CLASSES: tl.constexpr = TILE // (2 * STEPS)
    # a warp has a row to itself, if it is long enough
    LINE: tl.constexpr = 32 if PAIRS >= 32 else PAIRS
    row = first + tl.arange(0, CHUNK)
    exists = row < num_rows
    pair = tl.arange(0, PAIRS // LINE)[:, None, None] * LINE + tl.arange(0, LINE)[None, None, :]
    # where a pair is, if the empty slots of the classes before its own are passed over
    entry = pair + row[None, :, None] * (CLASSES * SLOTS)
    total = tl.zeros([CHUNK], tl.int32)
    overflow = tl.zeros([CHUNK], tl.int32)
    for part in tl.static_range(CLASSES):
        count = tl.load(counts + row * CLASSES + part, mask=exists, other=0)
        overflow = tl.maximum(overflow, count)
        total += count
        entry += tl.where(pair < total[None, :, None], 0, (SLOTS - count)[None, :, None])
    written = pair < total[None, :, None]
    missing = (overflow > SLOTS - STEPS) | (total > PAIRS)
    entries = pad + entry * 4
    left = tl.load(entries, mask=written, other=MINUS_INFINITY).to(tl.float32, bitcast=True)
    right = tl.load(entries + 1, mask=written, other=MINUS_INFINITY).to(tl.float32, bitcast=True)
    place = tl.load(entries + 2, mask=written, other=0)
    number, other = ordered(left), ordered(right)
    bound = tl.load(bounds + row, mask=exists, other=LOWEST)
    # the k-th highest number, or any that k numbers are not below
    low, high = bound, tl.max(tl.max(tl.maximum(number, other), 0), 1)
    while tl.max((low < high).to(tl.int32), 0) > 0:
        middle = mean_of(low, high)
        least = middle[None, :, None]
        enough = _count(number >= least, other >= least)
        low = tl.where(enough >= k, middle, low)
        high = tl.where(enough > k, high, tl.where(enough == k, middle, middle - 1))
    exact = low[None, :, None]
    wanted = k - _count(number > exact, other > exact)
    num_equal = _count(number == exact, other == exact)
    # of equals the first: the place up to which there are as many as are wanted
    sought = tl.minimum(wanted, num_equal)
    near = tl.where(num_equal > wanted, 0, HIGHEST)
    far = tl.full([CHUNK], HIGHEST, tl.int32)
    while tl.max((near < far).to(tl.int32), 0) > 0:
        middle = near + ((far - near) >> 1)
        until = middle[None, :, None]
        enough = _count((number == exact) & (place <= until), (other == exact) & (place < until))
        near = tl.where(enough >= sought, near, middle + 1)
        far = tl.where(enough >= sought, middle, far)
    until = near[None, :, None]
    equal, other_equal = (number == exact) & (place <= until), (other == exact) & (place < until)
    # equals of the bound that a crowded class did not take
    last = tl.maximum(tl.where(equal, place, -1), tl.where(other_equal, place + 1, -1))
    last = tl.max(tl.max(last, 0), 1)
    missing |= (low == bound) & (last // TILE >= tl.load(closed + row, mask=exists, other=HIGHEST))
    missing |= num_equal < wanted
    to = tl.load(places + row, mask=exists, other=-1)
    chosen = (to >= 0)[None, :, None]
    keep, keep_other = (number > exact) | equal, (other > exact) | other_equal
    both = keep.to(tl.int32) + keep_other.to(tl.int32)
    totals = tl.sum(both, 2)
    slot = (tl.cumsum(totals, 0) - totals)[:, :, None] + tl.cumsum(both, 2) - both
    at = to[None, :, None] * k + slot
    keep = keep & chosen & (slot < k)
    keep_other = keep_other & chosen & (slot + both <= k)
    tl.store(positions + at, place, mask=keep)
    tl.store(positions + at + both - 1, place + 1, mask=keep_other)
    if WITH_VALUES:
        tl.store(values + at, left, mask=keep)
        tl.store(values + at + both - 1, right, mask=keep_other)
    return tl.max((missing & (to >= 0)).to(tl.int32), 0)


@triton.jit
def _count(left, right):
    """Returns how many of `[PAIRS / LINE, CHUNK, LINE]` and their partners are true, `[CHUNK]`."""
    # floats, since whole numbers of truth values would be counted bit by bit
    ones = tl.where(left, 1.0, 0.0) + tl.where(right, 1.0, 0.0)
    return tl.sum(tl.sum(ones, 0), 1).to(tl.int32)
