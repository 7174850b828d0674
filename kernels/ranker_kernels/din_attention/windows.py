"""Windows into a flat axis, spelled out as (candidate, behaviour) pairs."""

from typing import NamedTuple

import torch
from torch import Tensor

from ranker_kernels.din_attention.unit import Moments


class Pairs(NamedTuple):
    """The P pairs of a batch, ordered by candidate and then by behaviour."""

    candidate: Tensor  # [P]
    behavior: Tensor  # [P]
    offsets: Tensor  # [C], the first pair of every candidate


def expand_windows(windows: Tensor) -> Pairs:
    """Lists the pairs of windows `[C, 2]`; waits for the device, since their number is data."""
    begins, ends = windows.unbind(1)
    lengths = ends - begins
    offsets = lengths.cumsum(0) - lengths
    candidate = torch.repeat_interleave(lengths)
    position = torch.arange(candidate.shape[0], device=windows.device)
    return Pairs(candidate, position + (begins - offsets)[candidate], offsets)


def softmax_terms(scores: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Reduces scores `[P]` to every candidate's maximum and sum of exp(score - maximum).

    Returns:
        Two `[C]` tensors, the maximum without a gradient; -inf and 0 for an empty window, which
        has no pair to ask for them.
    """
    lowest = scores.new_full(pairs.offsets.shape, -torch.inf)
    maximum = lowest.scatter_reduce(0, pairs.candidate, scores.detach(), "amax")
    exponentials = torch.exp(scores - maximum[pairs.candidate])
    total = torch.zeros_like(maximum).index_add(0, pairs.candidate, exponentials)
    return maximum, total


def line_of_moments(gradient: Moments, mean: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns offset and slope `[H]` with dz = offset + slope z for each of P pairs.

    dz = dmean / P + 2 (z - mean) / P dvariance, since mean and variance are those of all z.
    """
    count = (windows[:, 1] - windows[:, 0]).sum().clamp_min(1)
    slope = gradient.variance * 2 / count
    return gradient.mean / count - slope * mean, slope
