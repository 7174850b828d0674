"""TWIN's general search unit: the k behaviours of a long history that matter to a candidate.

score_cjh = <query_ch, key_j> + bias_jh        for the behaviours j of window c

The query has the projections absorbed: <q W^q, k W^h> = <(q W^q) (W^h)^T, k>, so that keys are the
raw behaviours and nothing of size [N, H d] exists. The heads' rankings are merged by the paper's
round robin (2302.02352, section 4.3). There is no gradient: the selected rows are scored again by
`target_attention`.
"""

import torch
from torch import Tensor

from ranker_kernels.search_topk import blocked

__all__ = ["search_topk"]


def search_topk(
    query: Tensor, keys: Tensor, bias: Tensor | None, windows: Tensor, *, k: int
) -> Tensor:
    """Selects up to k behaviours of every window.

    Equal scores count by position, lowest first, so that the same inputs always give the same
    selection. Operands may be bfloat16; sums are float32.

    Args:
        query: candidates, absorbed and scaled, `[C, H, D]`.
        keys: all behaviours of the batch, `[N, D]`.
        bias: added to the scores, `[N, H]`, finite; None is 0.
        windows: int64 `[C, 2]`, begin and end of each candidate's behaviours in N; they may
            overlap, be shared and be empty; 0 <= begin <= end <= N is taken for granted.
        k: how many.

    Returns:
        int64 `[C, k]`, positions in N, ascending; -1 behind them where a window has fewer than k.

    Raises:
        ValueError: shapes or dtypes do not fit together, or k < 1.
    """
    if query.ndim != 3 or keys.ndim != 2 or query.shape[2] != keys.shape[1]:
        raise ValueError(
            f"query is {list(query.shape)} and keys {list(keys.shape)}; they must be [C, H, D] and "
            "[N, D] with the same D"
        )
    if bias is not None and bias.shape != (keys.shape[0], query.shape[1]):
        raise ValueError(
            f"bias is {list(bias.shape)}; it must be [N, H] = {[keys.shape[0], query.shape[1]]}"
        )
    check_windows(windows, query.shape[0])
    if k < 1:
        raise ValueError(f"k is {k}; must be at least 1")
    with torch.no_grad():
        return _search(query, keys, bias, windows, k)


def check_windows(windows: Tensor, num_candidates: int) -> None:
    """Checks shape and dtype of windows.

    Raises:
        ValueError: they are not int64 `[C, 2]`.
    """
    if windows.shape != (num_candidates, 2) or windows.dtype != torch.int64:
        raise ValueError(
            f"windows is {windows.dtype} {list(windows.shape)}; it must be int64 "
            f"[{num_candidates}, 2], a begin and an end for each candidate"
        )


@torch.library.custom_op("ranker_kernels::search_topk", mutates_args=())
def _search(query: Tensor, keys: Tensor, bias: Tensor | None, windows: Tensor, k: int) -> Tensor:
    return blocked.search(query, keys, bias, windows, k)


@_search.register_fake
def _(query: Tensor, keys: Tensor, bias: Tensor | None, windows: Tensor, k: int) -> Tensor:
    return query.new_empty(query.shape[0], k, dtype=torch.int64)
