"""Sums of the rows in each window: pooling without attention, and the bags of multi-valued ids.

output_c = sum over the rows j of window c of value_j

Windows may overlap: the gradient of a row is the sum over the windows that cover it. Sums have a
fixed order on every device.
"""

from torch import Tensor

from ranker_kernels.search_topk import check_windows
from ranker_kernels.segment_sum.op import sum_windows

__all__ = ["segment_sum"]


def segment_sum(values: Tensor, windows: Tensor) -> Tensor:
    """Adds up the rows of every window.

    Args:
        values: `[N, D]`; half precision is summed in float32.
        windows: int64 `[C, 2]`, begin and end of each range of rows; they may overlap, be shared
            and be empty; 0 <= begin <= end <= N is taken for granted.

    Returns:
        `[C, D]` in the dtype of `values`, zeros for an empty window.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    if values.ndim != 2:
        raise ValueError(f"values is {list(values.shape)}; it must be [N, D]")
    check_windows(windows, len(windows))
    return sum_windows(values, windows)
