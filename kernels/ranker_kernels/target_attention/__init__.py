"""Multi-head target attention with absorbed projections: TWIN's exact search unit.

output_ch = sum over j of softmax_j(<query_ch, key_j> + bias_jh) value_j

j runs over the selected behaviours of a candidate (`index`) or over its whole window. The caller
absorbs the key projection into the query and applies the value projection after pooling, which is
the same by linearity: no projection of all behaviours exists. A bias of ln(n) makes one row count n
times (TWIN-V2).
"""

from torch import Tensor
from torch.nn.functional import embedding

from ranker_kernels.search_topk import check_windows
from ranker_kernels.target_attention.op import attend_windows
from ranker_kernels.target_attention.rows import attend_rows

__all__ = ["attend_rows", "target_attention"]


def target_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    *,
    index: Tensor | None = None,
    windows: Tensor | None = None,
) -> Tensor:
    """Attends to selected behaviours or to whole windows; exactly one of them is given.

    Windows are attended to tile by tile and recomputed in the backward: memory does not grow with
    candidates times length.

    Args:
        query: candidates, absorbed and scaled, `[C, H, D]`.
        keys: all behaviours of the batch, `[N, D]`.
        values: their values, `[N, V]`.
        bias: added to the scores, `[N, H]`, finite; None is 0.
        index: int64 `[C, K]` positions in N, -1 for none.
        windows: int64 `[C, 2]`, as in `search_topk`.

    Returns:
        `[C, H, V]` in the dtype of `values`, zeros for a candidate that sees nothing.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    if query.ndim != 3 or keys.ndim != 2 or query.shape[2] != keys.shape[1]:
        raise ValueError(
            f"query is {list(query.shape)} and keys {list(keys.shape)}; they must be [C, H, D] and "
            "[N, D] with the same D"
        )
    if values.ndim != 2 or values.shape[0] != keys.shape[0]:
        raise ValueError(f"values is {list(values.shape)}; it must be [{keys.shape[0]}, V]")
    if bias is not None and bias.shape != (keys.shape[0], query.shape[1]):
        raise ValueError(
            f"bias is {list(bias.shape)}; it must be [N, H] = {[keys.shape[0], query.shape[1]]}"
        )
    if (index is None) == (windows is None):
        raise ValueError("give either index or windows")
    if windows is not None:
        check_windows(windows, query.shape[0])
        return attend_windows(query, keys, values, bias, windows)[0].to(values.dtype)
    assert index is not None
    if index.ndim != 2 or index.shape[0] != query.shape[0]:
        raise ValueError(f"index is {list(index.shape)}; it must be [{query.shape[0]}, K]")
    valid = index >= 0
    if not len(keys):
        return query.new_zeros(*query.shape[:2], values.shape[1]) + 0 * (query.sum() + values.sum())
    rows = index.clamp_min(0)
    selected = embedding(rows, keys)
    return attend_rows(
        query,
        selected,
        # one gather, and one gradient of all behaviours, where both are the same
        selected if values is keys else embedding(rows, values),
        None if bias is None else embedding(rows, bias),
        valid,
    )
