"""ETA's search: the k behaviours of a window whose SimHash codes differ least from the candidate's.

distance_cj = number of bits in which code_c and code_j differ

Codes are packed, 64 bits to an int64, so that a behaviour costs 8 bytes and a distance one xor and
one popcount. There is no gradient.
"""

import torch
from torch import Tensor

from ranker_kernels.hamming_topk import blocked
from ranker_kernels.ops import on_device_of_inputs
from ranker_kernels.search_topk import check_windows

__all__ = ["hamming_topk", "pack_bits"]

_WORD = 64


def pack_bits(bits: Tensor) -> Tensor:
    """Packs bool `[rows, m]` into int64 `[rows, ceil(m / 64)]`; missing bits are 0."""
    rows, width = bits.shape
    words = -(-width // _WORD)
    padded = torch.nn.functional.pad(bits, (0, words * _WORD - width)).view(rows, words, _WORD)
    shifts = torch.arange(_WORD, device=bits.device)
    # the sum of different powers of two, the last of which is the sign bit
    return (padded.long() << shifts).sum(dim=2)


def hamming_topk(query: Tensor, keys: Tensor, windows: Tensor, *, k: int) -> Tensor:
    """Selects up to k behaviours of every window by distance; of equal ones the latest.

    Args:
        query: packed codes of the candidates, int64 `[C, W]`.
        keys: of all behaviours of the batch, int64 `[N, W]`.
        windows: int64 `[C, 2]`, as in `search_topk`.
        k: how many.

    Returns:
        int64 `[C, k]`, positions in N, ascending; -1 behind them where a window has fewer than k.

    Raises:
        ValueError: shapes or dtypes do not fit together, or k < 1.
    """
    for name, codes in (("query", query), ("keys", keys)):
        if codes.ndim != 2 or codes.dtype != torch.int64:
            raise ValueError(
                f"{name} is {codes.dtype} {list(codes.shape)}; it must be packed codes, int64 with "
                "2 dimensions (see pack_bits)"
            )
    if query.shape[1] != keys.shape[1]:
        raise ValueError(f"query has {query.shape[1]} words and keys {keys.shape[1]}")
    check_windows(windows, query.shape[0])
    if k < 1:
        raise ValueError(f"k is {k}; must be at least 1")
    return _search(query, keys, windows, k)


@torch.library.custom_op("ranker_kernels::hamming_topk", mutates_args=())
def _search(query: Tensor, keys: Tensor, windows: Tensor, k: int) -> Tensor:
    return blocked.search(query, keys, windows, k)


@_search.register_kernel("cuda")
@on_device_of_inputs
def _(query: Tensor, keys: Tensor, windows: Tensor, k: int) -> Tensor:
    # Triton is imported where it runs; a CPU installation does without
    from ranker_kernels.hamming_topk import launch

    return launch.search(query, keys, windows, k)


@_search.register_fake
def _(query: Tensor, keys: Tensor, windows: Tensor, k: int) -> Tensor:
    return query.new_empty(query.shape[0], k)
