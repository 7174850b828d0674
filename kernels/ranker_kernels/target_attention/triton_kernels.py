"""Triton kernels of target attention, forward: to windows and to selected behaviours.

A group is up to `ROWS / HP` candidates whose windows form a chain, so that they share the reads of
keys and values; row r of a tile is head r % HP of candidate r / HP of the group, HP the number of
heads, padded to a power of two. A selection is a group of its own.

`forward` walks over (group, piece of its behaviours), so that skewed lengths balance, and `combine`
puts the pieces of a group together. Nothing of a pair reaches memory.

With `SHARED`, keys are the first columns of the values: they are loaded once, and queries are zero
in the other columns. Products take 16-bit operands on tensor cores, float32 ones exactly ("ieee").
Offsets into behaviours and candidates are 64-bit.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.triton_kernels import load_rows, store_rows


@triton.jit
def load_piece(
    item, groups, items, counts, num_candidates, length,
    PIECE: tl.constexpr, INDEXED: tl.constexpr,
):  # fmt: skip
    """Returns the group of an item, its range, and the place of its part: -1 if it has none.

    Selections need no schedule in memory.
    """
    if INDEXED:
        pieces = tl.cdiv(length, PIECE)
        group = item // pieces
        start = item % pieces * PIECE
        stop = tl.minimum(start + PIECE, length)
        part = tl.where(pieces > 1, item, -1)
    else:
        stride = num_candidates + 1
        piece = tl.load(counts + 2)
        group = tl.load(items + item)
        place = item - tl.load(groups + 4 * stride + group)
        start = tl.load(groups + stride + group) + place * piece
        stop = tl.minimum(start + piece, tl.load(groups + 2 * stride + group))
        part = tl.load(groups + 5 * stride + group)
        part = tl.where(tl.load(groups + 5 * stride + group + 1) > part, part + place, -1)
    return group, start, stop, part


@triton.jit
def load_group(
    group, groups, members, where, length,
    HEADS: tl.constexpr, HP: tl.constexpr, ROWS: tl.constexpr, INDEXED: tl.constexpr,
):  # fmt: skip
    """Returns of each row: head, presence, its window `[begin, end)`, and its place in `[C, H]`."""
    row = tl.arange(0, ROWS)
    slot, head = row // HP, row % HP
    if INDEXED:
        present = (slot == 0) & (head < HEADS)
        candidate = group + tl.zeros([ROWS], tl.int64)
        begin = tl.zeros([ROWS], tl.int64)
        end = begin + length
    else:
        first, last = tl.load(groups + group), tl.load(groups + group + 1)
        present = (slot < last - first) & (head < HEADS)
        candidate = tl.load(members + first + slot, mask=present, other=0)
        begin = tl.load(where + 2 * candidate, mask=present, other=0)
        end = tl.load(where + 2 * candidate + 1, mask=present, other=0)
    return head, present, begin, end, candidate * HEADS + head


@triton.jit
def load_tile(
    start, end, place, keys, values, where, length,
    DIM: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, V: tl.constexpr, TILE: tl.constexpr,
    INDEXED: tl.constexpr, SHARED: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Returns positions, rows, which of them exist, keys `[TILE, D]` and values `[TILE, V]`."""
    step = start + tl.arange(0, TILE)
    rows, exists = step, step < end
    if INDEXED:
        rows = tl.load(where + place * length + step, mask=exists, other=-1)
        exists = rows >= 0
    value = load_rows(values, rows, exists, WIDTH, V).to(DOT)
    key = value
    if not SHARED:
        key = load_rows(keys, rows, exists, DIM, D).to(DOT)
    return step, rows, exists, key, value


@triton.jit
def score_tile(
    q, key, head, rows, visible, bias,
    HEADS: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Returns scores `[ROWS, TILE]`, -inf where nothing is visible."""
    score = tl.dot(q, tl.trans(key), input_precision="ieee")
    if HAS_BIAS:
        at = bias + rows[None, :] * HEADS + head[:, None]
        score += tl.load(at, mask=visible, other=0.0).to(tl.float32)
    return tl.where(visible, score, -float("inf"))


# an argument of 1 would be a constant
@triton.jit(do_not_specialize=["num_candidates", "length"])
def forward(
    query, keys, values, bias, where, members, groups, items, counts, output, normalizer,
    parts, part_normalizers, num_candidates, length,
    HEADS: tl.constexpr, HP: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, V: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    PIECE: tl.constexpr, INDEXED: tl.constexpr, SHARED: tl.constexpr,
    HAS_BIAS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Writes the pooled values and log sum exp of a piece's scores.

    A group of one piece writes to the outputs, `[C, H, WIDTH]` and `[C, H]`, 0 for no scores; a
    piece of several to its part, `[ROWS, WIDTH]` and `[ROWS]`, -inf for no scores.
    """
    item = tl.program_id(0).to(tl.int64)
    # two questions: the first is asked by the compiler
    if not INDEXED:  # noqa: SIM102
        if item >= tl.load(counts + 1):
            return
    group, start, stop, part = load_piece(
        item, groups, items, counts, num_candidates, length, PIECE, INDEXED
    )
    head, present, begin, end, place = load_group(
        group, groups, members, where, length, HEADS, HP, ROWS, INDEXED
    )
    q = load_rows(query, place, present, DIM, D).to(DOT)
    maximum = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    pooled = tl.zeros([ROWS, V], tl.float32)
    for at in range(start, stop, TILE):
        step, rows, exists, key, value = load_tile(
            at, stop, group, keys, values, where, length,
            DIM, D, WIDTH, V, TILE, INDEXED, SHARED, DOT,
        )  # fmt: skip
        visible = (exists & present[:, None]) & (step >= begin[:, None]) & (step < end[:, None])
        score = score_tile(q, key, head, rows, visible, bias, HEADS, HAS_BIAS)
        risen = tl.maximum(maximum, tl.max(score, 1))
        # nothing seen yet: any finite number instead of -inf, whose differences are undefined
        base = tl.where(risen == -float("inf"), 0.0, risen)
        share = tl.exp(score - base[:, None])
        shrink = tl.exp(maximum - base)
        total = total * shrink + tl.sum(share, 1)
        pooled = pooled * shrink[:, None]
        pooled += tl.dot(share.to(DOT), value, input_precision="ieee")
        maximum = risen
    some = total > 0
    pooled = pooled * tl.where(some, 1.0 / tl.where(some, total, 1.0), 0.0)[:, None]
    found = tl.where(some, maximum + tl.log(tl.where(some, total, 1.0)), -float("inf"))
    if part >= 0:
        row = part * ROWS + tl.arange(0, ROWS)
        store_rows(parts, row, present, pooled, WIDTH, V)
        tl.store(part_normalizers + row, found, mask=present)
    else:
        store_rows(output, place, present, pooled, WIDTH, V)
        tl.store(normalizer + place, tl.where(some, found, 0.0), mask=present)


@triton.jit(do_not_specialize=["num_candidates", "length"])
def combine(
    parts, part_normalizers, where, members, groups, counts, output, normalizer,
    num_candidates, length,
    HEADS: tl.constexpr, HP: tl.constexpr, SIZE: tl.constexpr, SIDE: tl.constexpr,
    ROWS: tl.constexpr, PIECE: tl.constexpr, INDEXED: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Adds up the parts `[ROWS, SIZE]` of each group, weighted by their share of exp."""
    group = tl.program_id(0).to(tl.int64)
    if INDEXED:
        begin = group * tl.cdiv(length, PIECE)
        end = begin + tl.cdiv(length, PIECE)
    else:
        if group >= tl.load(counts):
            return
        part_begins = groups + 5 * (num_candidates + 1)
        begin, end = tl.load(part_begins + group), tl.load(part_begins + group + 1)
        if begin == end:
            return
    _head, present, _begin, _end, place = load_group(
        group, groups, members, where, length, HEADS, HP, ROWS, INDEXED
    )
    row = tl.arange(0, ROWS)
    maximum = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    summed = tl.zeros([ROWS, SIDE], tl.float32)
    for item in range(begin, end):
        at = item * ROWS + row
        part = load_rows(parts, at, present, SIZE, SIDE)
        if WEIGHTED:
            found = tl.load(part_normalizers + at, mask=present, other=0.0)
            risen = tl.maximum(maximum, found)
            # a row that sees nothing in any piece so far
            base = tl.where(risen == -float("inf"), 0.0, risen)
            weight, shrink = tl.exp(found - base), tl.exp(maximum - base)
            total = total * shrink + weight
            summed = summed * shrink[:, None] + part * weight[:, None]
            maximum = risen
        else:
            summed += part
    if WEIGHTED:
        # rows that see nothing keep zeros
        present &= total > 0
        total = tl.where(present, total, 1.0)
        summed = summed / total[:, None]
        tl.store(normalizer + place, maximum + tl.log(total), mask=present)
    store_rows(output, place, present, summed, SIZE, SIDE)
