"""How the Triton kernels of the sums are launched."""

import torch
from torch import Tensor

from ranker_kernels.schedule import Items, cut_into_pieces, find_overlapping
from ranker_kernels.segment_sum import triton_kernels
from ranker_kernels.triton_kernels import choose_dot_type, tile_side

# rows that a program adds up at a time, and columns
ROWS, COLUMNS = 64, 64
# rows of a segment that one program takes
PIECE = 4096
GRADIENT_TILE, GRADIENT_WINDOWS = 64, 32


def forward(values: Tensor, windows: Tensor) -> Tensor:
    """Returns the sum of each window's rows, `[C, D]`, in float32."""
    begins, ends = windows.unbind(1)
    pieces = cut_into_pieces(ends - begins, PIECE)
    begin = begins[pieces.owners] + pieces.places * PIECE
    end = torch.minimum(begin + PIECE, ends[pieces.owners])
    return sum_pieces(_sum(values, begin, end), pieces)


def backward(gradient: Tensor, windows: Tensor, num_rows: int) -> Tensor:
    """Returns for each row the sum of the gradients `[C, D]` of the windows that cover it."""
    size = gradient.shape[1]
    output = gradient.new_empty(num_rows, size)
    if not output.numel():
        return output
    order = windows[:, 0].argsort(stable=True)
    lows, highs = windows[order].unbind(1)
    first, last = find_overlapping(lows.contiguous(), highs.contiguous(), num_rows, GRADIENT_TILE)
    side = min(COLUMNS, tile_side(size))
    triton_kernels.spread_gradient[(first.shape[0], -(-size // side))](
        *(gradient.contiguous(), order, windows.contiguous(), first, last, output, num_rows, size),
        SIDE=side,
        TILE=GRADIENT_TILE,
        WINDOWS=GRADIENT_WINDOWS,
        DOT=choose_dot_type(gradient),
    )
    return output


def sum_pieces(parts: Tensor, pieces: Items) -> Tensor:
    """Adds up parts `[I, ...]`, one of each piece, to one of each range, in their order."""
    summed = _sum(parts.flatten(1), pieces.begins[:-1], pieces.begins[1:])
    return summed.view(-1, *parts.shape[1:])


def _sum(values: Tensor, begins: Tensor, ends: Tensor) -> Tensor:
    num_segments, size = len(begins), values.shape[1]
    output = values.new_empty(num_segments, size, dtype=torch.float32)
    if not output.numel():
        return output
    mean = len(values) // num_segments
    steps = min(ROWS, 1 << max(0, mean - 1).bit_length())
    segments = ROWS // steps
    side = min(COLUMNS, tile_side(size))
    triton_kernels.sum_segments[(-(-num_segments // segments), -(-size // side))](
        *(values.contiguous(), begins.contiguous(), ends.contiguous()),
        *(output, num_segments, size),
        SIDE=side,
        SEGMENTS=segments,
        STEPS=steps,
    )
    return output
