"""Prepares tensors for the Triton kernels of SDIM's interest and launches them."""

from typing import Any

import torch
from torch import Tensor

from ranker_kernels.schedule import Items, cut_into_pieces, find_overlapping
from ranker_kernels.segment_sum.launch import sum_pieces
from ranker_kernels.signature_sums import triton_kernels
from ranker_kernels.triton_kernels import are_supported, choose_dot_type, tile_side

MAX_SIDE = 128
# table rows and behaviours of a product, and behaviours of a program
ROWS, TILE, PIECE = 64, 32, 2048
CANDIDATES = 16
WARPS = 4


def supports(behaviors: Tensor) -> bool:
    """Whether the kernels take this shape and dtype."""
    return are_supported(behaviors) and behaviors.shape[1] <= MAX_SIDE


def forward(behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor) -> Tensor:
    """Returns `[C, D]` in float32."""
    call = _Call(behaviors, codes, wanted, windows)
    output = behaviors.new_empty(len(windows), behaviors.shape[1], dtype=torch.float32)
    tables = call.fill_tables(behaviors)
    if len(windows):
        triton_kernels.pool[(len(windows),)](
            *(tables, call.wanted, call.window_of, output),
            S=tile_side(call.sizes["SIGNATURES"]),
            num_warps=WARPS,
            **call.sizes,
        )
    return output


def backward(
    gradient: Tensor, behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor
) -> Tensor:
    """Returns the gradient of the behaviours in float32; the tables are computed again."""
    call = _Call(behaviors, codes, wanted, windows)
    tables = call.fill_tables(behaviors)
    gradients = torch.empty_like(tables)
    num_windows, num_signatures = len(call.lows), call.sizes["SIGNATURES"]
    order = call.window_of.argsort(stable=True)
    bounds = torch.searchsorted(
        call.window_of[order], torch.arange(num_windows + 1, device=order.device)
    )
    if num_windows:
        triton_kernels.differentiate_tables[(num_windows, num_signatures)](
            *(gradient.contiguous(), tables, call.wanted, order, bounds, bounds[1:], gradients),
            B=tile_side(call.sizes["BUCKETS"]),
            CANDIDATES=CANDIDATES,
            num_warps=WARPS,
            **call.sizes,
        )
    output = torch.empty_like(behaviors, dtype=torch.float32, memory_format=torch.contiguous_format)
    first, last = find_overlapping(call.lows, call.highs, len(behaviors), TILE)
    if len(first):
        triton_kernels.differentiate_behaviors[(len(first),)](
            *(gradients, call.codes, call.lows, call.highs, first, last, output, len(behaviors)),
            **call.product,
            **call.sizes,
        )
    return output


class _Call:
    """Arguments that the kernels of a call share; windows are the distinct ones, by their begin."""

    def __init__(self, behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor) -> None:
        distinct, self.window_of = windows.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
        # each begins on 16 bytes: there are builds for pointers that do, and others
        self.lows, self.highs = (bound.clone() for bound in distinct.unbind(1))
        self.pieces: Items = cut_into_pieces(self.highs - self.lows, PIECE)
        self.codes, self.wanted = codes.contiguous(), wanted.contiguous()
        num_buckets = int(torch.stack([_highest(codes), _highest(wanted)]).max()) + 1
        self.sizes = {
            "SIGNATURES": codes.shape[1],
            "BUCKETS": 1 << (num_buckets - 1).bit_length(),
            "DIM": behaviors.shape[1],
            "D": tile_side(behaviors.shape[1]),
        }
        self.product: dict[str, Any] = {
            "ROWS": ROWS,
            "TILE": TILE,
            "DOT": choose_dot_type(behaviors),
            "num_warps": WARPS,
        }

    def fill_tables(self, behaviors: Tensor) -> Tensor:
        """Returns the table of every window, float32 `[G, S * BUCKETS, D]`."""
        entries = self.sizes["SIGNATURES"] * self.sizes["BUCKETS"]
        owners, places, _ = self.pieces
        parts = behaviors.new_empty(len(owners), entries, self.sizes["DIM"], dtype=torch.float32)
        if len(owners):
            triton_kernels.fill_tables[(len(owners), -(-entries // ROWS))](
                *(behaviors.contiguous(), self.codes, self.lows, self.highs),
                *(owners, places, parts),
                PIECE=PIECE,
                **self.product,
                **self.sizes,
            )
        return sum_pieces(parts, self.pieces)


def _highest(codes: Tensor) -> Tensor:
    return codes.max() if codes.numel() else codes.new_zeros(())
