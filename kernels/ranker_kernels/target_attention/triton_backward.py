"""Triton kernels of the backward of target attention.

`backward_query` walks over the same items as the forward; for selections it also writes the
gradients of their rows, and for `triton_selections.py` those of rows that are selected again.
`backward_rows` walks over tiles of behaviours and, for each, over the groups that see it: every
gradient is written once, same bits twice.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.target_attention.triton_kernels import (
    load_group,
    load_piece,
    load_tile,
    score_tile,
)
from ranker_kernels.target_attention.triton_selections import load_list
from ranker_kernels.triton_kernels import load_rows, store_rows


@triton.jit
def _store_selected(
    of_key, of_value, of_bias, rows, exists, visible, head, key_gradient, value_gradient,
    bias_gradient,
    HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    V: tl.constexpr, SHARED: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of selected rows: keys `[TILE, D]`, values, biases `[ROWS, TILE]`."""
    store_rows(value_gradient, rows, exists, of_value, WIDTH, V)
    if not SHARED:
        store_rows(key_gradient, rows, exists, of_key, DIM, D)
    if HAS_BIAS:
        # a selection has one candidate: rows of a tile are its heads
        at = bias_gradient + rows[None, :] * HEADS + head[:, None]
        tl.store(at, of_bias, mask=visible & exists[None, :])


# an argument of 1 would be a constant
@triton.jit(do_not_specialize=["num_candidates", "length", "num_selections"])
def backward_query(
    query, keys, values, bias, where, members, groups, items, counts,
    upstream, output, normalizer, delta,
    query_gradient, parts, key_gradient, value_gradient, bias_gradient,
    ends, lists, key_parts, value_parts, bias_parts, num_candidates, length, num_selections,
    HEADS: tl.constexpr, HP: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, V: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    PIECE: tl.constexpr, INDEXED: tl.constexpr, SHARED: tl.constexpr,
    HAS_BIAS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of the queries, `[C, H, DIM]`, or of a piece to its part `[ROWS, DIM]`.

    With `INDEXED` also the gradients of the selected rows: to the rows themselves if no other
    selection shares one, else to row `c * length + k` of the parts for selection k of candidate c,
    which is listed. Without, the mean `<gradient, output>` `[C, H]`, for `backward_rows`.
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
    of_output = load_rows(upstream, place, present, WIDTH, V).to(tl.float32)
    mean = tl.sum(of_output * load_rows(output, place, present, WIDTH, V), 1)
    pooled = of_output.to(DOT)
    logsum = tl.load(normalizer + place, mask=present, other=0.0)
    if not INDEXED:
        # every piece of a group writes the same
        tl.store(delta + place, mean, mask=present)
    summed = tl.zeros([ROWS, D], tl.float32)
    for at in range(start, stop, TILE):
        step, rows, exists, key, value = load_tile(
            at, stop, group, keys, values, where, length,
            DIM, D, WIDTH, V, TILE, INDEXED, SHARED, DOT,
        )  # fmt: skip
        visible = (exists & present[:, None]) & (step >= begin[:, None]) & (step < end[:, None])
        score = score_tile(q, key, head, rows, visible, bias, HEADS, HAS_BIAS)
        share = tl.exp(score - logsum[:, None])
        change = tl.dot(pooled, tl.trans(value), input_precision="ieee")
        change = share * (change - mean[:, None])
        low = change.to(DOT)
        summed += tl.dot(low, key, input_precision="ieee")
        if INDEXED:
            of_value = tl.dot(tl.trans(share.to(DOT)), pooled, input_precision="ieee")
            of_key = tl.dot(tl.trans(low), q, input_precision="ieee")
            if SHARED:
                of_value += of_key
            list_start, count = load_list(ends, rows, exists)
            _store_selected(
                of_key, of_value, change, rows, count == 1, visible, head,
                key_gradient, value_gradient, bias_gradient,
                HEADS, DIM, D, WIDTH, V, SHARED, HAS_BIAS,
            )  # fmt: skip
            if tl.max(count, 0) > 1:
                selection = group * length + step
                listed = tl.load(lists + selection, mask=count > 1, other=0) + list_start
                tl.store(lists + num_selections + listed, selection, mask=count > 1)
                _store_selected(
                    of_key, of_value, change, selection, count > 1, visible, head,
                    key_parts, value_parts, bias_parts, HEADS, DIM, D, WIDTH, V, SHARED, HAS_BIAS,
                )  # fmt: skip
    if part >= 0:
        store_rows(parts, part * ROWS + tl.arange(0, ROWS), present, summed, DIM, D)
    else:
        store_rows(query_gradient, place, present, summed, DIM, D)


@triton.jit(do_not_specialize=["num_rows"])
def backward_rows(
    query, keys, values, bias, where, members, groups,
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
    step, rows, exists, key, value = load_tile(
        tile * TILE, num_rows, tile, keys, values, where, 0,
        DIM, D, WIDTH, V, TILE, False, SHARED, DOT,
    )  # fmt: skip
    of_value = tl.zeros([TILE, V], tl.float32)
    of_key = tl.zeros([TILE, D], tl.float32)
    of_bias = tl.zeros([TILE, HP], tl.float32)
    for group in range(tl.load(first_groups + tile), tl.load(last_groups + tile)):
        head, present, begin, end, place = load_group(
            group, groups, members, where, 0, HEADS, HP, ROWS, False
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
