"""Multi-head target attention with absorbed projections: TWIN's exact search unit.

output_ch = sum over j of softmax_j(<query_ch, key_j> + bias_jh) value_j

j runs over the selected behaviours of a candidate (`index`) or over its whole window. The caller
absorbs the key projection into the query and applies the value projection after pooling, which is
the same by linearity: no projection of all behaviours exists. A bias of ln(n) makes one row count n
times (TWIN-V2).
"""

import torch
from torch import Tensor

from ranker_kernels.autocast import cast_operand
from ranker_kernels.search_topk import check_windows
from ranker_kernels.target_attention.op import attend

__all__ = ["target_attention"]


def target_attention(
    query: Tensor,
    keys: Tensor | None,
    values: Tensor,
    bias: Tensor | None,
    *,
    index: Tensor | None = None,
    windows: Tensor | None = None,
) -> Tensor:
    """Attends to selected behaviours or to whole windows; exactly one of them is given.

    Either is done piece by piece and recomputed in the backward: memory grows neither with
    candidates times length nor with candidates times K times width.

    Args:
        query: candidates, absorbed and scaled, `[C, H, D]`.
        keys: all behaviours of the batch, `[N, D]`; None where they are the first D columns of the
            values, which are then read once.
        values: their values, `[N, V]`.
        bias: added to the scores, `[N, H]`, finite; None is 0.
        index: int64 `[C, K]` positions in N, -1 for none.
        windows: int64 `[C, 2]`, as in `search_topk`.

    Returns:
        `[C, H, V]` in the dtype of `values` (under autocast on GPUs, its), zeros for a candidate
        that sees nothing.

    Raises:
        ValueError: shapes or dtypes do not fit together.
        IndexError: on a CPU, where index or windows point outside the N rows.
    """
    if query.ndim != 3 or values.ndim != 2 or (keys is not None and keys.ndim != 2):
        raise ValueError(
            f"query has {query.ndim} dimensions and values {values.ndim}; they must be [C, H, D] "
            "and [N, V], and keys [N, D]"
        )
    if not query.shape[1]:
        raise ValueError(f"query is {list(query.shape)}; it must have a head")
    width = values.shape[1] if keys is None else keys.shape[1]
    if query.shape[2] > width or (keys is not None and query.shape[2] != width):
        raise ValueError(f"query has width {query.shape[2]} and the keys {width}; they must agree")
    if keys is not None and len(keys) != len(values):
        raise ValueError(f"values has {len(values)} rows; it must have {len(keys)}, like keys")
    if bias is not None and bias.shape != (len(values), query.shape[1]):
        raise ValueError(f"bias is {list(bias.shape)}; it must be {[len(values), query.shape[1]]}")
    if (index is None) == (windows is None):
        raise ValueError("give either index or windows")
    if windows is not None:
        check_windows(windows, query.shape[0])
    if index is not None and (index.ndim != 2 or index.shape[0] != query.shape[0]):
        raise ValueError(f"index is {list(index.shape)}; it must be [{query.shape[0]}, K]")
    if index is not None and index.dtype != torch.int64:
        raise ValueError(f"index is {index.dtype}; it must be torch.int64")
    query, keys, values = cast_operand(query), cast_operand(keys), cast_operand(values)
    output: Tensor = attend(query, keys, values, bias, windows, index)[0]
    return output.to(values.dtype)
