"""SDIM's interest: behaviours that collide with a candidate under random signatures (2205.10249).

output_c = mean over signatures s of  v_cs / |v_cs|,    v_cs = sum over j in window c with
                                                               code_js = code_cs of behaviour_j

A signature is a few signs of random projections, read as a number. Behaviours are summed by
(window, signature, number), once for all candidates that see the window.
"""

import torch
from torch import Tensor

from ranker_kernels.search_topk import check_windows
from ranker_kernels.signature_sums.op import pool_collisions

__all__ = ["MAX_BITS", "signature_sums", "signatures"]

# a signature is a byte
MAX_BITS = 8


@torch.no_grad()
def signatures(embedded: Tensor, directions: Tensor, bits: int) -> Tensor:
    """Hashes rows; bit i of signature s is whether row . directions[:, s bits + i] >= 0.

    Args:
        embedded: `[R, D]`.
        directions: `[D, S * bits]`.
        bits: of a signature, 1 to 8.

    Returns:
        uint8 `[R, S]`.

    Raises:
        ValueError: `bits` is out of range or does not divide the directions.
    """
    if not 1 <= bits <= MAX_BITS or directions.shape[1] % bits:
        raise ValueError(
            f"bits is {bits}; it must be 1 to {MAX_BITS} and divide the {directions.shape[1]} "
            "directions"
        )
    shape = (len(embedded), directions.shape[1] // bits, bits)
    signs = (embedded @ directions >= 0).view(torch.uint8).view(shape)
    codes = signs[:, :, 0].clone()
    for bit in range(1, bits):
        codes |= signs[:, :, bit] << bit
    return codes


def signature_sums(behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor) -> Tensor:
    """Sums the colliding behaviours of every window, and averages the sums' directions.

    Args:
        behaviors: all behaviours of the batch, `[N, D]`; they alone receive gradients.
        codes: signatures of the behaviours, uint8 `[N, S]`.
        wanted: signatures of the candidates, uint8 `[C, S]`.
        windows: int64 `[C, 2]`, begin and end of each candidate's behaviours in N; they may
            overlap, be shared and be empty; 0 <= begin <= end <= N is taken for granted.

    Returns:
        `[C, D]` in the dtype of `behaviors`; a signature without a collision counts as zeros.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    for name, given, rows in (("codes", codes, len(behaviors)), ("wanted", wanted, len(windows))):
        if given.dtype != torch.uint8 or given.ndim != 2 or len(given) != rows:
            raise ValueError(
                f"{name} is {given.dtype} {list(given.shape)}; it must be signatures, uint8 with "
                f"{rows} rows (see signatures)"
            )
    if codes.shape[1] != wanted.shape[1] or not codes.shape[1]:
        raise ValueError(
            f"codes has {codes.shape[1]} signatures and wanted {wanted.shape[1]}; they must agree, "
            "and be at least 1"
        )
    check_windows(windows, len(wanted))
    return pool_collisions(behaviors, codes, wanted, windows)
