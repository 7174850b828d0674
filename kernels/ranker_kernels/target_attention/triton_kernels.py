"""Triton kernels of target attention, to windows and to selected behaviours.

A group is up to `ROWS / HP` candidates whose windows form a chain, so that they share the reads of
keys and values; row r of a tile is head r % HP of candidate r / HP of the group, HP the number of
heads, padded to a power of two. A selection is a group of its own.

`forward` and `backward_query` walk over (group, piece of its behaviours), so that skewed lengths
balance, and `combine` puts the pieces of a group together. `backward_rows` walks over tiles of
behaviours and, for each, over the groups that see it: every gradient is written once, without
atomics, same bits twice. Nothing of a pair reaches memory, except that `backward_query` writes the
gradient of every selected row, since selections share rows in no order.

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
def _load_piece(
    item, item_groups, item_places, group_lows, group_highs, length,
    PIECE: tl.constexpr, INDEXED: tl.constexpr,
):  # fmt: skip
    """Returns the group of a piece, and its range; selections need no schedule in memory."""
    if INDEXED:
        pieces = tl.cdiv(length, PIECE)
        group = item // pieces
        start = item % pieces * PIECE
        stop = tl.minimum(start + PIECE, length)
    else:
        group = tl.load(item_groups + item)
        start = tl.load(group_lows + group) + tl.load(item_places + item) * PIECE
        stop = tl.minimum(start + PIECE, tl.load(group_highs + group))
    return group, start, stop


@triton.jit
def _load_group(
    group, group_begins, group_ends, order, where, length,
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
        first, last = tl.load(group_begins + group), tl.load(group_ends + group)
        present = (slot < last - first) & (head < HEADS)
        candidate = tl.load(order + first + slot, mask=present, other=0)
        begin = tl.load(where + 2 * candidate, mask=present, other=0)
        end = tl.load(where + 2 * candidate + 1, mask=present, other=0)
    return head, present, begin, end, candidate * HEADS + head


@triton.jit
def _load_tile(
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
def _score(
    q, key, head, rows, visible, bias,
    HEADS: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Returns scores `[ROWS, TILE]`, -inf where nothing is visible."""
    score = tl.dot(q, tl.trans(key), input_precision="ieee")
    if HAS_BIAS:
        at = bias + rows[None, :] * HEADS + head[:, None]
        score += tl.load(at, mask=visible, other=0.0).to(tl.float32)
    return tl.where(visible, score, -float("inf"))


@triton.jit
def forward(
    query, keys, values, bias, where, order, group_begins, group_ends,
    group_lows, group_highs, item_groups, item_places, output, normalizer, length,
    HEADS: tl.constexpr, HP: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, V: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    PIECE: tl.constexpr, SPLIT: tl.constexpr, INDEXED: tl.constexpr, SHARED: tl.constexpr,
    HAS_BIAS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Writes the pooled values and log sum exp of a piece's scores.

    Without `SPLIT` a group is one piece and the outputs are `[C, H, WIDTH]` and `[C, H]`, 0 for no
    scores; with it they are `[items, ROWS, WIDTH]` and `[items, ROWS]`, -inf for no scores.
    """
    item = tl.program_id(0).to(tl.int64)
    group, start, stop = _load_piece(
        item, item_groups, item_places, group_lows, group_highs, length, PIECE, INDEXED
    )
    head, present, begin, end, place = _load_group(
        group, group_begins, group_ends, order, where, length, HEADS, HP, ROWS, INDEXED
    )
    q = load_rows(query, place, present, DIM, D).to(DOT)
    maximum = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    pooled = tl.zeros([ROWS, V], tl.float32)
    for at in range(start, stop, TILE):
        step, rows, exists, key, value = _load_tile(
            at, stop, group, keys, values, where, length,
            DIM, D, WIDTH, V, TILE, INDEXED, SHARED, DOT,
        )  # fmt: skip
        visible = (exists & present[:, None]) & (step >= begin[:, None]) & (step < end[:, None])
        score = _score(q, key, head, rows, visible, bias, HEADS, HAS_BIAS)
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
    if SPLIT:
        place = item * ROWS + tl.arange(0, ROWS)
    else:
        found = tl.where(some, found, 0.0)
    store_rows(output, place, present, pooled, WIDTH, V)
    tl.store(normalizer + place, found, mask=present)


@triton.jit
def combine(
    parts, part_normalizers, order, group_begins, group_ends, item_begins, output, normalizer,
    HEADS: tl.constexpr, HP: tl.constexpr, SIZE: tl.constexpr, SIDE: tl.constexpr,
    ROWS: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Adds up the pieces `[items, ROWS, SIZE]` of each group, weighted by their share of exp."""
    group = tl.program_id(0).to(tl.int64)
    first, last = tl.load(group_begins + group), tl.load(group_ends + group)
    row = tl.arange(0, ROWS)
    slot, head = row // HP, row % HP
    present = (slot < last - first) & (head < HEADS)
    place = tl.load(order + first + slot, mask=present, other=0) * HEADS + head
    begin, end = tl.load(item_begins + group), tl.load(item_begins + group + 1)
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


@triton.jit
def backward_query(
    query, keys, values, bias, where, order, group_begins, group_ends,
    group_lows, group_highs, item_groups, item_places, upstream, normalizer, delta,
    query_gradient, key_gradient, value_gradient, bias_gradient, length,
    HEADS: tl.constexpr, HP: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, V: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    PIECE: tl.constexpr, SPLIT: tl.constexpr, INDEXED: tl.constexpr, SHARED: tl.constexpr,
    HAS_BIAS: tl.constexpr, DOT: tl.constexpr, DISTINCT: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of the queries, `[C, H, DIM]`, or with `SPLIT` `[items, ROWS, DIM]`.

    With `INDEXED` also the gradients of the selected rows: to the rows themselves if no two
    selections share one (`DISTINCT`), else to row `c * length + k` for selection k of candidate c.
    """
    item = tl.program_id(0).to(tl.int64)
    group, start, stop = _load_piece(
        item, item_groups, item_places, group_lows, group_highs, length, PIECE, INDEXED
    )
    head, present, begin, end, place = _load_group(
        group, group_begins, group_ends, order, where, length, HEADS, HP, ROWS, INDEXED
    )
    q = load_rows(query, place, present, DIM, D).to(DOT)
    pooled = load_rows(upstream, place, present, WIDTH, V).to(DOT)
    logsum = tl.load(normalizer + place, mask=present, other=0.0)
    mean = tl.load(delta + place, mask=present, other=0.0)
    summed = tl.zeros([ROWS, D], tl.float32)
    for at in range(start, stop, TILE):
        step, rows, exists, key, value = _load_tile(
            at, stop, group, keys, values, where, length,
            DIM, D, WIDTH, V, TILE, INDEXED, SHARED, DOT,
        )  # fmt: skip
        visible = (exists & present[:, None]) & (step >= begin[:, None]) & (step < end[:, None])
        score = _score(q, key, head, rows, visible, bias, HEADS, HAS_BIAS)
        share = tl.exp(score - logsum[:, None])
        change = tl.dot(pooled, tl.trans(value), input_precision="ieee")
        change = share * (change - mean[:, None])
        low = change.to(DOT)
        summed += tl.dot(low, key, input_precision="ieee")
        if INDEXED:
            to = group * length + step
            if DISTINCT:
                to = rows
            of_value = tl.dot(tl.trans(share.to(DOT)), pooled, input_precision="ieee")
            of_key = tl.dot(tl.trans(low), q, input_precision="ieee")
            if SHARED:
                of_value += of_key
            else:
                store_rows(key_gradient, to, exists, of_key, DIM, D)
            store_rows(value_gradient, to, exists, of_value, WIDTH, V)
            if HAS_BIAS:
                # a selection has one candidate: rows are its heads
                tl.store(bias_gradient + to[None, :] * HEADS + head[:, None], change, mask=visible)
    if SPLIT:
        place = item * ROWS + tl.arange(0, ROWS)
    store_rows(query_gradient, place, present, summed, DIM, D)


@triton.jit
def backward_rows(
    query, keys, values, bias, where, order, group_begins, group_ends,
    first_groups, last_groups, upstream, normalizer, delta,
    key_gradient, value_gradient, bias_gradient, num_rows,
    HEADS: tl.constexpr, HP: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, V: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    SHARED: tl.constexpr, HAS_BIAS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of a tile of keys, values and biases; zeros where nobody looks.

    Groups `first_groups[i]` to `last_groups[i]` are all that see tile i. Scores are transposed,
    `[TILE, ROWS]`, as the sums over candidates want them.
    """
    tile = tl.program_id(0).to(tl.int64)
    step, rows, exists, key, value = _load_tile(
        tile * TILE, num_rows, tile, keys, values, where, 0,
        DIM, D, WIDTH, V, TILE, False, SHARED, DOT,
    )  # fmt: skip
    of_value = tl.zeros([TILE, V], tl.float32)
    of_key = tl.zeros([TILE, D], tl.float32)
    of_bias = tl.zeros([TILE, HP], tl.float32)
    for group in range(tl.load(first_groups + tile), tl.load(last_groups + tile)):
        head, present, begin, end, place = _load_group(
            group, group_begins, group_ends, order, where, 0, HEADS, HP, ROWS, False
        )
        q = load_rows(query, place, present, DIM, D).to(DOT)
        pooled = load_rows(upstream, place, present, WIDTH, V).to(DOT)
        logsum = tl.load(normalizer + place, mask=present, other=0.0)
        mean = tl.load(delta + place, mask=present, other=0.0)
        visible = (exists[:, None] & present) & (step[:, None] >= begin) & (step[:, None] < end)
        score = tl.dot(key, tl.trans(q), input_precision="ieee")
        if HAS_BIAS:
            at = bias + rows[:, None] * HEADS + head[None, :]
            score += tl.load(at, mask=visible, other=0.0).to(tl.float32)
        share = tl.where(visible, tl.exp(score - logsum), 0.0)
        of_value += tl.dot(share.to(DOT), pooled, input_precision="ieee")
        change = tl.dot(value, tl.trans(pooled), input_precision="ieee")
        # rows that nobody sees may hold anything
        change = tl.where(visible, share * (change - mean), 0.0)
        if HAS_BIAS:
            of_bias += tl.sum(tl.reshape(change, [TILE, ROWS // HP, HP]), 1)
        if SHARED:
            of_value += tl.dot(change.to(DOT), q, input_precision="ieee")
        else:
            of_key += tl.dot(change.to(DOT), q, input_precision="ieee")
    store_rows(value_gradient, rows, exists, of_value, WIDTH, V)
    if not SHARED:
        store_rows(key_gradient, rows, exists, of_key, DIM, D)
    if HAS_BIAS:
        store_rows(bias_gradient, rows, exists, of_bias, HEADS, HP)
