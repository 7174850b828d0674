"""DIN's attention over windows of a flat behaviour axis (1706.06978).

output_c = sum over the behaviours j of window c of a(q_c, k_j) k_j

`a` is the local activation unit, a small feed-forward net over [q; k; q - k; q * k]. Its first
layer is collapsed exactly (`first_layer.py`); `reference.py` has the formula word for word.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ranker_kernels.autocast import cast_operand
from ranker_kernels.din_attention.batch_moments import pair_moments
from ranker_kernels.din_attention.op import attend
from ranker_kernels.din_attention.unit import Activation, ActivationUnit, Moments, Normalize

# from the moments of this process's pairs, and their number [], to those of all processes
MergeMoments = Callable[[Moments, Tensor], Moments]

__all__ = [
    "Activation",
    "ActivationUnit",
    "MergeMoments",
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
    merge_moments: MergeMoments | None = None,
) -> tuple[Tensor, tuple[Moments, ...]]:
    """Pools the behaviours that each candidate sees, weighted by the activation unit.

    Args:
        query: candidates `[C, D]`.
        behaviors: all behaviours of the batch `[N, D]`.
        windows: int64 `[C, 2]`, begin and end of each candidate's behaviours in N. Windows may
            overlap, be shared and be empty; 0 <= begin <= end <= N must hold.
        unit: weights of the activation unit; all parts receive gradients.
        normalize: "none" takes the scores as weights (the paper: their sum tells how strong the
            interest is), "softmax" normalises score / sqrt(D) over the window (the authors' code).
        merge_moments: where Dice takes the statistics of the batch, what turns those of this
            process's pairs into those of all processes, with gradient; None has one process.

    Returns:
        The output `[C, D]` in the dtype of `behaviors` (under autocast on GPUs, its), zero for an
        empty window, and the statistics of every hidden layer if Dice took them from this batch
        (zeros if the batch has no pair at all), else nothing.

    Raises:
        ValueError: shapes or dtypes do not fit together.
        IndexError: on a CPU, where windows point outside the N rows; a GPU does not look.
    """
    _check(query, behaviors, windows, unit, normalize)
    query, behaviors = cast_operand(query), cast_operand(behaviors)
    found: list[Moments] = []
    if unit.uses_batch_moments:
        count = (windows[:, 1] - windows[:, 0]).sum()
        for _ in unit.alphas:
            own = pair_moments(query, behaviors, windows, unit, found)
            found.append(own if merge_moments is None else merge_moments(own, count))
        unit = dataclasses.replace(unit, moments=tuple(found))
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
    return output, tuple(Moments(mean.detach(), variance.detach()) for mean, variance in found)


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
