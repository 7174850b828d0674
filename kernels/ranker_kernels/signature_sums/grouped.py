"""SDIM's interest in PyTorch: products with matrices of zeros and ones, windows side by side."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# behaviours of a product, padding included: they and their collisions stay in a core's cache
MAX_BEHAVIORS = 4096


class Batch(NamedTuple):
    """Windows of similar length, and the signatures whose sums are needed of each.

    A window that many candidates share needs the sums of all codes, else each candidate has a
    window of its own with one code for each signature.

    Attributes:
        begins, ends: `[G]` ranges of behaviours.
        sought: uint8 `[G, b, S]`.
        candidates: `[c]`, who looks at these windows.
        places: `[c, S]`, which of the `G b S` sums each of them wants.
    """

    begins: Tensor
    ends: Tensor
    sought: Tensor
    candidates: Tensor
    places: Tensor


def forward(behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor) -> Tensor:
    """Returns `[C, D]`."""
    output = behaviors.new_zeros(len(windows), behaviors.shape[1])
    for batch in group_windows(wanted, windows):
        sums = _sum_collisions(behaviors, codes, batch)
        output[batch.candidates] = (sums * inverse_norm(sums)).mean(dim=1)
    return output


def backward(
    gradient: Tensor, behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor
) -> Tensor:
    """Returns the gradient of the behaviours; the sums are computed again."""
    output = torch.zeros_like(behaviors, memory_format=torch.contiguous_format)
    for batch in group_windows(wanted, windows):
        sums = _sum_collisions(behaviors, codes, batch)
        scale = inverse_norm(sums)
        direction = sums * scale
        upstream = gradient[batch.candidates].unsqueeze(1) / codes.shape[1]
        along = (direction * upstream).sum(dim=2, keepdim=True)
        change = (upstream - direction * along) * scale
        of_sums = change.new_zeros(batch.sought.numel(), change.shape[2])
        of_sums.index_add_(0, batch.places.flatten(), change.flatten(0, 1))
        of_sums = of_sums.view(len(batch.begins), -1, change.shape[2])
        for rows, hits in _collide(codes, batch, gradient.dtype):
            parts = hits.mT @ of_sums
            if isinstance(rows, slice):
                output[rows] += parts[0]
            else:
                output.index_add_(0, rows.flatten(), parts.flatten(0, 1))
    return output


def inverse_norm(sums: Tensor) -> Tensor:
    """Returns 1 / |sum| `[..., 1]`, and 0 for a sum of zeros, which has no direction."""
    norm = sums.norm(dim=-1, keepdim=True)
    return torch.where(norm > 0, 1 / norm, 0)


def group_windows(wanted: Tensor, windows: Tensor) -> Iterator[Batch]:
    """Yields batches that cover all windows `[C, 2]` that are not empty."""
    filled = (windows[:, 1] > windows[:, 0]).nonzero()[:, 0]
    if not len(filled):
        return
    distinct, window_of = windows[filled].unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    num_codes = int(wanted.max()) + 1
    shared = torch.bincount(window_of) > num_codes
    alone = filled[~shared[window_of]]
    signature = torch.arange(wanted.shape[1], device=wanted.device)
    for chosen in _cut_by_length(windows[alone]):
        members = alone[chosen]
        sought = wanted[members].unsqueeze(1)
        places = torch.arange(sought.numel(), device=wanted.device).view(len(members), -1)
        begins, ends = windows[members].unbind(1)
        yield Batch(begins, ends, sought, members, places)
    every = torch.arange(num_codes, device=wanted.device).to(torch.uint8)
    for window in shared.nonzero()[:, 0]:
        members = filled[window_of == window]
        sought = every.view(1, -1, 1).expand(1, -1, wanted.shape[1])
        places = wanted[members].long() * wanted.shape[1] + signature
        begins, ends = distinct[window].unsqueeze(0).unbind(1)
        yield Batch(begins, ends, sought, members, places)


def _cut_by_length(windows: Tensor) -> Iterator[Tensor]:
    """Yields places of windows, none more than twice as long as another of the same piece."""
    lengths, order = (windows[:, 1] - windows[:, 0]).sort()
    begin, shortest = 0, 0
    sizes = lengths.tolist()
    for end, length in enumerate([*sizes, float("inf")]):
        if end == begin:
            shortest = length
        elif length > 2 * shortest or (end + 1 - begin) * length > MAX_BEHAVIORS:
            yield order[begin:end]
            begin, shortest = end, length


def _collide(
    codes: Tensor, batch: Batch, dtype: torch.dtype
) -> Iterator[tuple[Tensor | slice, Tensor]]:
    """Yields behaviours, n of each window, and as ones `[G, b S, n]` where they have a sought code.

    Windows that have ended repeat their last behaviour, which then collides with nothing. The
    behaviours of one window are a slice, which is not copied.
    """
    begins, ends = batch.begins.unsqueeze(1), batch.ends.unsqueeze(1)
    longest = int((ends - begins).max())
    for start in range(0, longest, MAX_BEHAVIORS):
        stop = min(start + MAX_BEHAVIORS, longest)
        rows: Tensor | slice
        if len(begins) == 1:
            rows = slice(int(begins) + start, int(begins) + stop)
            hits = codes[rows].T.contiguous() == batch.sought.unsqueeze(3)
        else:
            place = begins + torch.arange(start, stop, device=codes.device)
            rows = torch.minimum(place, ends - 1)
            hits = codes[rows].mT.unsqueeze(1) == batch.sought.unsqueeze(3)
            hits &= (place < ends).unsqueeze(1).unsqueeze(1)
        yield rows, hits.flatten(1, 2).to(dtype)


def _sum_collisions(behaviors: Tensor, codes: Tensor, batch: Batch) -> Tensor:
    """Returns the sums of each candidate and signature, `[c, S, D]`."""
    total = behaviors.new_zeros(*batch.sought.flatten(1).shape, behaviors.shape[1])
    for rows, hits in _collide(codes, batch, behaviors.dtype):
        total += hits @ behaviors[rows]
    return total.flatten(0, 1)[batch.places]
