"""From scores of every head to one selection: ranking with fixed ties, and the round robin."""

import numpy as np
import torch
from torch import Tensor


def rank(scores: Tensor, k: int) -> Tensor:
    """Ranks the k highest of each row; equal scores are ranked by position, lowest first.

    Args:
        scores: float32 `[R, L]` with L > k, of which at least k are finite in every row.
        k: how many.

    Returns:
        Positions `[R, k]`, best first.
    """
    # one more than is wanted tells where the cut falls between equals
    positions = _highest(scores, k + 1)
    order = _sort_rows(_descending(scores.gather(1, positions)) << 32 | positions)
    value, positions = order >> 32, (order & 0xFFFFFFFF)[:, :k]
    cut = (value[:, k - 1] == value[:, k]).nonzero()[:, 0]
    if len(cut):
        first = _first_of_ties(scores[cut], positions[cut, -1:], k)
        positions[cut] = order_ranked(scores[cut].gather(1, first), first)
    return positions


def order_ranked(values: Tensor, positions: Tensor) -> Tensor:
    """Sorts positions `[R, k]` by their float32 values, highest first, then by position."""
    return _sort_rows(_descending(values) << 32 | positions) & 0xFFFFFFFF


def _highest(scores: Tensor, k: int) -> Tensor:
    """Returns the positions of the k highest of each row, in any order."""
    # on x86, NumPy selects and sorts with vector instructions, several times faster than torch
    split = scores.shape[1] - k
    return torch.from_numpy(np.argpartition(scores.numpy(), split, axis=1)[:, split:].copy())


def _sort_rows(keys: Tensor) -> Tensor:
    """Returns the rows in ascending order."""
    if keys.is_cuda:
        return keys.sort(dim=1).values
    return torch.from_numpy(np.sort(keys.numpy(), axis=1))


def _descending(values: Tensor) -> Tensor:
    """Returns int64 numbers of 32 bits whose order is the reverse of the values'."""
    # minus zero becomes zero: they are equal
    bits = (values + 0.0).view(torch.int32)
    return (~(bits ^ ((bits >> 31) & 0x7FFFFFFF))).long()


def _first_of_ties(scores: Tensor, last: Tensor, k: int) -> Tensor:
    """Returns the k positions `[R, k]` above the score at `last` `[R, 1]` or first at it."""
    threshold = scores.gather(1, last)
    above, equal = scores > threshold, scores == threshold
    room = k - above.sum(dim=1, keepdim=True)
    keep = above | (equal & (equal.cumsum(dim=1) <= room))
    return keep.nonzero()[:, 1].view(-1, k)


def round_robin(ranked: Tensor) -> Tensor:
    """Merges the rankings of the heads into one selection (TWIN, section 4.3).

    The paper walks over the heads' lists in the order of ranks and collects positions until there
    are k different ones. A position is met first at the minimum over heads h of rank_h * H + h, and
    the walk ends with the k smallest of these.

    Args:
        ranked: `[R, H, k]` different positions in every list, best first.

    Returns:
        The selected positions `[R, k]`, ascending.
    """
    num_rows, num_heads, k = ranked.shape
    steps = num_heads * k
    step = torch.arange(steps, device=ranked.device).view(k, num_heads).T
    # sorted by position and, within it, by step: the first of a run is where the walk meets it
    bits = steps.bit_length()
    visits = _sort_rows((ranked << bits | step).flatten(1))
    position, step = visits >> bits, visits & ((1 << bits) - 1)
    repeated = position[:, 1:] == position[:, :-1]
    step[:, 1:].masked_fill_(repeated, steps)
    last = _sort_rows(step)[:, k - 1 : k]
    return position[step <= last].view(num_rows, k)
