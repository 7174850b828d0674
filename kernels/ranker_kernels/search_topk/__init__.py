"""TWIN's general search unit: the k behaviours of a long history that matter to a candidate.

score_cjh = <query_ch, key_j> + bias_jh        for the behaviours j of window c

The query has the projections absorbed: <q W^q, k W^h> = <(q W^q) (W^h)^T, k>, so that keys are the
raw behaviours and nothing of size [N, H d] exists. Keys that repeat are given once
(`DistinctRows`). The heads' rankings are merged by the paper's round robin (2302.02352, section
4.3). There is no gradient: the selected rows are scored again by `target_attention`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ranker_kernels.autocast import cast_operand
from ranker_kernels.ops import on_device_of_inputs
from ranker_kernels.search_topk import blocked, compiled
from ranker_kernels.search_topk.distinct import DistinctRows

__all__ = ["DistinctRows", "search_topk"]


def search_topk(
    query: Tensor, keys: Tensor | DistinctRows, bias: Tensor | None, windows: Tensor, *, k: int
) -> Tensor:
    """Selects up to k behaviours of every window.

    Equal scores count by position, lowest first, so that the same inputs always give the same
    selection. Scores are float32, whatever the precision of the operands.

    Args:
        query: candidates, absorbed and scaled, `[C, H, D]`.
        keys: all behaviours of the batch, `[N, D]`, floats, or int8 if the query has the scales of
            the columns; they are gathered a tile at a time from `DistinctRows`.
        bias: added to the scores, `[N, H]`, finite; None is 0.
        windows: int64 `[C, 2]`, begin and end of each candidate's behaviours in N; they may
            overlap, be shared and be empty; 0 <= begin <= end <= N must hold.
        k: how many.

    Returns:
        int64 `[C, k]`, positions in N, ascending; -1 behind them where a window has fewer than k.

    Raises:
        ValueError: shapes or dtypes do not fit together, there is no head, or k < 1.
        IndexError: in compiled code, where windows point outside the N behaviours.
    """
    if isinstance(keys, Tensor):
        keys = DistinctRows((keys,), (None,))
    if query.ndim != 3 or any(v.ndim != 2 for v in keys.values) or query.shape[2] != keys.width:
        shapes = [list(values.shape) for values in keys.values]
        raise ValueError(
            f"query is {list(query.shape)} and keys {shapes}; they must be [C, H, D] and [N, D], "
            "or blocks of it, with the same D"
        )
    if not query.shape[1]:
        raise ValueError(f"query is {list(query.shape)}; it must have a head")
    if bias is not None and bias.shape != (len(keys), query.shape[1]):
        raise ValueError(f"bias is {list(bias.shape)}; it must be {[len(keys), query.shape[1]]}")
    check_windows(windows, query.shape[0])
    if k < 1:
        raise ValueError(f"k is {k}; must be at least 1")
    values = [cast_operand(part) for part in keys.values]
    if all(part.is_floating_point() for part in values):
        query = cast_operand(query)
    with torch.no_grad():
        return _search(query, values, keys.rows, bias, windows, k)


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
def _search(
    query: Tensor,
    values: Sequence[Tensor],
    rows: Sequence[Tensor | None],
    bias: Tensor | None,
    windows: Tensor,
    k: int,
) -> Tensor:
    keys = DistinctRows(tuple(values), tuple(rows))
    library = compiled.find_library()
    if library is None:
        return blocked.search(query, keys, bias, windows, k)
    return compiled.search(library, query, keys, bias, windows, k)


@_search.register_kernel("cuda")
@on_device_of_inputs
def _(
    query: Tensor,
    values: Sequence[Tensor],
    rows: Sequence[Tensor | None],
    bias: Tensor | None,
    windows: Tensor,
    k: int,
) -> Tensor:
    # Triton is imported where it runs; a CPU installation does without
    from ranker_kernels.search_topk import launch

    keys = DistinctRows(tuple(values), tuple(rows))
    # where memory is fast, gathering all keys once is cheaper than gathering them in every tile
    matrix = keys.between(0, len(keys))
    shape = launch.choose_launch(query, matrix, bias, k)
    return launch.search(query, matrix, bias, windows, k, shape)


@_search.register_fake
def _(query: Tensor, *rest: Any) -> Tensor:
    return query.new_empty(query.shape[0], rest[-1], dtype=torch.int64)


# on GPUs the operands are cast before: autocast.py
_search.register_autocast("cpu", torch.float32)
