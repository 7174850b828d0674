"""Triton kernels that add up rows by segment, without atomics: the same bits twice."""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


# a build for each of a batch's numbers would be compiled in the middle of a training
@triton.jit(do_not_specialize=["num_segments"])
def sum_segments(
    values, begins, ends, output, num_segments, size,
    SIDE: tl.constexpr, SEGMENTS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Writes the sums `[S, size]` of rows `[begin, end)` of `values`, in their order.

    A program takes `SEGMENTS` segments, `STEPS` rows of each at a time, and `SIDE` columns.
    """
    lane = tl.arange(0, SEGMENTS * STEPS)
    segment = tl.program_id(0).to(tl.int64) * SEGMENTS + lane // STEPS
    exists = segment < num_segments
    at = tl.load(begins + segment, mask=exists, other=0) + lane % STEPS
    end = tl.load(ends + segment, mask=exists, other=0)
    columns = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    total = tl.zeros([SEGMENTS, SIDE], tl.float32)
    for _ in range(0, tl.max(end - at + lane % STEPS, 0), STEPS):
        inside = at < end
        tile = tl.load(
            values + at[:, None] * size + columns[None, :],
            mask=inside[:, None] & (columns < size)[None, :],
            other=0.0,
        ).to(tl.float32)
        total += tl.sum(tl.reshape(tile, [SEGMENTS, STEPS, SIDE]), 1)
        at += STEPS
    written = tl.program_id(0).to(tl.int64) * SEGMENTS + tl.arange(0, SEGMENTS)
    tl.store(
        output + written[:, None] * size + columns[None, :],
        total,
        mask=(written < num_segments)[:, None] & (columns < size)[None, :],
    )


@triton.jit(do_not_specialize=["num_rows"])
def spread_gradient(
    gradient, order, windows, first_windows, last_windows, output, num_rows, size,
    SIDE: tl.constexpr, TILE: tl.constexpr, WINDOWS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Writes for each of `num_rows` rows the sum of the gradients of the windows that cover it.

    Windows `order[first_windows[i]:last_windows[i]]` are all that overlap tile i; they are added
    up as a product with a matrix of zeros and ones.
    """
    tile = tl.program_id(0).to(tl.int64)
    row = tile * TILE + tl.arange(0, TILE)
    columns = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    total = tl.zeros([TILE, SIDE], tl.float32)
    last = tl.load(last_windows + tile)
    for at in range(tl.load(first_windows + tile), last, WINDOWS):
        place = at + tl.arange(0, WINDOWS)
        window = tl.load(order + place, mask=place < last, other=0)
        begin = tl.load(windows + 2 * window, mask=place < last, other=0)
        end = tl.load(windows + 2 * window + 1, mask=place < last, other=0)
        covers = (row[:, None] >= begin[None, :]) & (row[:, None] < end[None, :])
        part = tl.load(
            gradient + window[:, None] * size + columns[None, :],
            mask=(place < last)[:, None] & (columns < size)[None, :],
            other=0.0,
        )
        total += tl.dot(covers.to(DOT), part.to(DOT), input_precision="ieee")
    tl.store(
        output + row[:, None] * size + columns[None, :],
        total,
        mask=(row < num_rows)[:, None] & (columns < size)[None, :],
    )
