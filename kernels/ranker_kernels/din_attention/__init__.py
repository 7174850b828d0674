"""DIN's attention over windows of a flat behaviour axis (1706.06978).

output_c = sum over the behaviours j of window c of a(q_c, k_j) k_j

`a` is the local activation unit, a small feed-forward net over [q; k; q - k; q * k]. Its first
layer is collapsed exactly (`first_layer.py`); `reference.py` has the formula word for word.
"""

import torch
from torch import Tensor

from ranker_kernels.din_attention.batch_moments import (
    ComputeMoments,
    attend_with_batch_moments,
    moments_of_pairs,
)
from ranker_kernels.din_attention.op import attend
from ranker_kernels.din_attention.unit import (
    Activation,
    ActivationUnit,
    Moments,
    Normalize,
    compute_dtype,
)

__all__ = [
    "Activation",
    "ActivationUnit",
    "ComputeMoments",
    "Moments",
    "Normalize",
    "din_attention",
]


def din_attention(
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    unit: ActivationUnit,
    *,
    normalize: Normalize = "none",
    compute_moments: ComputeMoments = moments_of_pairs,
) -> tuple[Tensor, tuple[Moments, ...]]:
    """Pools the behaviours that each candidate sees, weighted by the activation unit.

    Args:
        query: candidates `[C, D]`.
        behaviors: all behaviours of the batch `[N, D]`.
        windows: int64 `[C, 2]`, begin and end of each candidate's behaviours in N. Windows may
            overlap, be shared and be empty; 0 <= begin <= end <= N is taken for granted.
        unit: weights of the activation unit; all parts receive gradients, except its moments.
        normalize: "none" takes the scores as weights (the paper: their sum tells how strong the
            interest is), "softmax" normalises score / sqrt(D) over the window (the authors' code).
        compute_moments: where Dice takes the statistics of the batch, what computes mean and biased
            variance `[H]` of pre-activations `[P, H]`, with gradient; training on several ranks
            passes one that sums over them.

    Returns:
        The output `[C, D]` in the dtype of `behaviors`, zero for an empty window, and the
        statistics of every hidden layer if Dice took them from this batch (zeros if the batch
        has no pair at all), else nothing.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    _check(query, behaviors, windows, unit, normalize)
    if unit.uses_batch_moments:
        dtype = compute_dtype(query, behaviors)
        output, moments = attend_with_batch_moments(
            query.to(dtype),
            behaviors.to(dtype),
            windows,
            unit.to(dtype),
            normalize,
            compute_moments,
        )
        return output.to(behaviors.dtype), moments
    output, _ = attend(
        query,
        behaviors,
        windows,
        list(unit.weights),
        list(unit.biases),
        list(unit.alphas),
        [moments.mean for moments in unit.moments],
        [moments.variance for moments in unit.moments],
        unit.activation,
        normalize,
    )
    return output, ()


def _check(
    query: Tensor, behaviors: Tensor, windows: Tensor, unit: ActivationUnit, normalize: Normalize
) -> None:
    if query.ndim != 2 or behaviors.ndim != 2 or query.shape[1] != behaviors.shape[1]:
        raise ValueError(
            f"query is {list(query.shape)} and behaviors {list(behaviors.shape)}; "
            "they must be [C, D] and [N, D] with the same D"
        )
    if windows.shape != (query.shape[0], 2) or windows.dtype != torch.int64:
        raise ValueError(
            f"windows is {windows.dtype} {list(windows.shape)}; it must be int64 "
            f"[{query.shape[0]}, 2], a begin and an end for each candidate"
        )
    if unit.weights[0].shape[1] != 4 * query.shape[1]:
        raise ValueError(
            f"the first weight of the unit has {unit.weights[0].shape[1]} columns; with D = "
            f"{query.shape[1]} it must have 4 D, for [q; k; q - k; q * k]"
        )
    if unit.weights[-1].shape[0] != 1:
        raise ValueError(
            f"the last weight of the unit has {unit.weights[-1].shape[0]} rows; it must have 1, "
            "the score"
        )
    if normalize not in ("none", "softmax"):
        raise ValueError(f"normalize is {normalize!r}; choose 'none' or 'softmax'")
