"""Triton kernels that add up the gradients of rows which several candidates selected.

A row that is selected once gets its gradient from `backward_query`. The selections of the others
are listed row by row, `ends` `[N]` says up to where: they arrive in no fixed order, are put in
order, and their parts added up in it, so that two runs give the same bits. `lists` `[2, S]` has
first the place of each selection in the list of its row, then, from the start of the row, the
list; when that is complete, `order_selections` writes it in order over the places.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.triton_kernels import load_rows, store_rows


# an argument of 1 would be a constant
@triton.jit(do_not_specialize=["size"])
def count_selections(index, counts, lists, size, BLOCK: tl.constexpr):
    """Counts the selections of each row, and gives each a place among those of its row."""
    selection = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(index + selection, mask=selection < size, other=-1)
    place = tl.atomic_add(counts + row, 1, mask=row >= 0, sem="relaxed")
    tl.store(lists + selection, place.to(tl.int64), mask=row >= 0)


@triton.jit
def load_list(ends, rows, exists):
    """Returns where the lists of rows start, and how many selections they have."""
    start = tl.load(ends + rows - 1, mask=exists & (rows > 0), other=0)
    return start, tl.load(ends + rows, mask=exists, other=0) - start


@triton.jit(do_not_specialize=["size"])
def order_selections(index, ends, lists, size, BLOCK: tl.constexpr):
    """Puts the lists of several selections in ascending order."""
    selection = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(index + selection, mask=selection < size, other=-1)
    start, count = load_list(ends, row, row >= 0)
    several = count > 1
    rank = tl.zeros([BLOCK], tl.int64)
    for step in range(0, tl.max(tl.where(several, count, 0), 0)):
        inside = several & (step < count)
        other = tl.load(lists + size + start + step, mask=inside, other=0)
        rank += (inside & (other < selection)).to(tl.int64)
    tl.store(lists + start + rank, selection, mask=several)


@triton.jit(do_not_specialize=["num_rows"])
def merge_selections(
    ends, lists, key_parts, value_parts, bias_parts, key_gradient, value_gradient, bias_gradient,
    num_rows,
    HEADS: tl.constexpr, HP: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, V: tl.constexpr, ROWS: tl.constexpr, SHARED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of rows that are selected several times, and zeros where never."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    exists = rows < num_rows
    start, count = load_list(ends, rows, exists)
    of_value, of_key = tl.zeros([ROWS, V], tl.float32), tl.zeros([ROWS, D], tl.float32)
    of_bias = tl.zeros([ROWS, HP], tl.float32)
    last = tl.where(count > 1, start + count, start)
    for _ in range(0, tl.max(last - start, 0)):
        selection = tl.load(lists + start, mask=start < last, other=-1)
        inside = selection >= 0
        of_value += load_rows(value_parts, selection, inside, WIDTH, V)
        if not SHARED:
            of_key += load_rows(key_parts, selection, inside, DIM, D)
        if HAS_BIAS:
            of_bias += load_rows(bias_parts, selection, inside, HEADS, HP)
        start += 1
    written = exists & (count != 1)
    store_rows(value_gradient, rows, written, of_value, WIDTH, V)
    if not SHARED:
        store_rows(key_gradient, rows, written, of_key, DIM, D)
    if HAS_BIAS:
        store_rows(bias_gradient, rows, written, of_bias, HEADS, HP)
