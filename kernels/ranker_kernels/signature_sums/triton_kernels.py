"""Triton kernels of SDIM's interest: tables of sums, and what candidates read from them.

A table holds, for one window, the sums of the behaviours of each (signature, code): row
s * BUCKETS + b. Rows are picked by products with matrices of zeros and ones, exact in any
precision, so that nothing needs atomics: same bits twice. Behaviours and tables are multiplied as
`DOT`; float32 exactly ("ieee"). Offsets into behaviours are 64-bit.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.triton_kernels import load_rows, store_rows


@triton.jit
def _matches(
    codes, behavior, valid, entry, SIGNATURES: tl.constexpr, BUCKETS: tl.constexpr
):  # fmt: skip
    """Returns bool `[R, B]`: whether behaviours have the codes of table rows."""
    at = codes + behavior[None, :] * SIGNATURES + (entry // BUCKETS)[:, None]
    inside = valid[None, :] & (entry < SIGNATURES * BUCKETS)[:, None]
    code = tl.load(at, mask=inside, other=0).to(tl.int32)
    return inside & (code == (entry % BUCKETS)[:, None])


@triton.jit
def fill_tables(
    behaviors, codes, lows, highs, item_windows, item_places, tables,
    SIGNATURES: tl.constexpr, BUCKETS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr, PIECE: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Writes `ROWS` rows of the table `[SIGNATURES * BUCKETS, DIM]` of each piece of a window."""
    item = tl.program_id(0).to(tl.int64)
    window = tl.load(item_windows + item)
    entry = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    begin = tl.load(lows + window) + tl.load(item_places + item) * PIECE
    end = tl.minimum(begin + PIECE, tl.load(highs + window))
    total = tl.zeros([ROWS, D], tl.float32)
    for start in range(begin, end, TILE):
        behavior = start + tl.arange(0, TILE)
        valid = behavior < end
        value = load_rows(behaviors, behavior, valid, DIM, D).to(DOT)
        found = _matches(codes, behavior, valid, entry, SIGNATURES, BUCKETS)
        total += tl.dot(found.to(DOT), value, input_precision="ieee")
    written = item * (SIGNATURES * BUCKETS) + entry
    store_rows(tables, written, entry < SIGNATURES * BUCKETS, total, DIM, D)


@triton.jit
def pool(
    tables, wanted, window_of, output,
    SIGNATURES: tl.constexpr, S: tl.constexpr, BUCKETS: tl.constexpr,
    DIM: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Writes the mean of a candidate's sums, each scaled to length 1; zeros have no direction."""
    candidate = tl.program_id(0).to(tl.int64)
    signature = tl.arange(0, S)
    exists = signature < SIGNATURES
    code = tl.load(wanted + candidate * SIGNATURES + signature, mask=exists, other=0)
    row = (tl.load(window_of + candidate) * SIGNATURES + signature) * BUCKETS + code
    sums = load_rows(tables, row, exists, DIM, D)
    square = tl.sum(sums * sums, 1)
    scale = tl.where(square > 0, 1.0 / tl.sqrt(tl.where(square > 0, square, 1.0)), 0.0)
    mean = tl.sum(sums * scale[:, None], 0) / SIGNATURES
    dims = tl.arange(0, D)
    tl.store(output + candidate * DIM + dims, mean, mask=dims < DIM)


@triton.jit
def differentiate_tables(
    upstream, tables, wanted, order, window_begins, window_ends, gradients,
    SIGNATURES: tl.constexpr, BUCKETS: tl.constexpr, B: tl.constexpr,
    DIM: tl.constexpr, D: tl.constexpr, CANDIDATES: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of one signature's rows of a window's table.

    Candidates `order[window_begins[g]:window_ends[g]]` look at window g.
    """
    window, signature = tl.program_id(0).to(tl.int64), tl.program_id(1)
    bucket = tl.arange(0, B)
    table = (window * SIGNATURES + signature) * BUCKETS
    total = tl.zeros([B, D], tl.float32)
    end = tl.load(window_ends + window)
    for start in range(tl.load(window_begins + window), end, CANDIDATES):
        place = start + tl.arange(0, CANDIDATES)
        valid = place < end
        candidate = tl.load(order + place, mask=valid, other=0)
        code = tl.load(wanted + candidate * SIGNATURES + signature, mask=valid, other=0)
        sums = load_rows(tables, table + code, valid, DIM, D)
        square = tl.sum(sums * sums, 1)
        scale = tl.where(square > 0, 1.0 / tl.sqrt(tl.where(square > 0, square, 1.0)), 0.0)
        direction = sums * scale[:, None]
        pooled = load_rows(upstream, candidate, valid, DIM, D).to(tl.float32) / SIGNATURES
        along = tl.sum(direction * pooled, 1)
        change = (pooled - direction * along[:, None]) * scale[:, None]
        mine = valid[None, :] & (code.to(tl.int32)[None, :] == bucket[:, None])
        total += tl.dot(mine.to(tl.float32), change, input_precision="ieee")
    store_rows(gradients, table + bucket, bucket < BUCKETS, total, DIM, D)


# a build for each of a batch's numbers would be compiled in the middle of a training
@triton.jit(do_not_specialize=["num_behaviors"])
def differentiate_behaviors(
    gradients, codes, lows, highs, first_windows, last_windows, output, num_behaviors,
    SIGNATURES: tl.constexpr, BUCKETS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of a tile of behaviours; zeros where nobody looks.

    Windows `first_windows[i]` to `last_windows[i]` are all that overlap tile i.
    """
    tile = tl.program_id(0).to(tl.int64)
    behavior = tile * TILE + tl.arange(0, TILE)
    total = tl.zeros([TILE, D], tl.float32)
    for window in range(tl.load(first_windows + tile), tl.load(last_windows + tile)):
        valid = (behavior >= tl.load(lows + window)) & (behavior < tl.load(highs + window))
        for start in range(0, SIGNATURES * BUCKETS, ROWS):
            entry = start + tl.arange(0, ROWS)
            exists = entry < SIGNATURES * BUCKETS
            row = window * (SIGNATURES * BUCKETS) + entry
            part = load_rows(gradients, row, exists, DIM, D).to(DOT)
            found = _matches(codes, behavior, valid, entry, SIGNATURES, BUCKETS)
            total += tl.dot(tl.trans(found.to(DOT)), part, input_precision="ieee")
    store_rows(output, behavior, behavior < num_behaviors, total, DIM, D)
