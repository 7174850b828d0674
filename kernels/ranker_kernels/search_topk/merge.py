"""From scores of every head to one selection: ranking with fixed ties, and the round robin."""

import torch
from torch import Tensor


def rank(scores: Tensor, k: int) -> Tensor:
    """Ranks the k highest of each row; equal scores are ranked by position, lowest first.

    Args:
        scores: `[R, L]` with L > k, of which at least k are finite in every row.
        k: how many.

    Returns:
        Positions `[R, k]`, best first.
    """
    values, positions = scores.topk(k + 1, dim=1)
    # topk promises no order among equals: mend the rows in which it matters
    cut = (values[:, k - 1] == values[:, k]).nonzero()[:, 0]
    values, positions = values[:, :k], positions[:, :k]
    if len(cut):
        positions[cut] = _first_of_ties(scores[cut], values[cut, -1:], k)
        values[cut] = scores[cut].gather(1, positions[cut])
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1)
    tied[cut] = True
    rows = tied.nonzero()[:, 0]
    if len(rows):
        by_position = positions[rows].sort(dim=1).values
        order = scores[rows].gather(1, by_position).sort(dim=1, descending=True, stable=True)
        positions[rows] = by_position.gather(1, order.indices)
    return positions


def _first_of_ties(scores: Tensor, threshold: Tensor, k: int) -> Tensor:
    """Returns the k positions `[R, k]` above the threshold `[R, 1]` or first at it, ascending."""
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
    visits = (ranked * steps + step).flatten(1).sort(dim=1).values
    position, step = visits // steps, visits % steps
    repeated = position[:, 1:] == position[:, :-1]
    step[:, 1:].masked_fill_(repeated, steps)
    last = step.kthvalue(k, dim=1, keepdim=True).values
    return position[step <= last].view(num_rows, k)
