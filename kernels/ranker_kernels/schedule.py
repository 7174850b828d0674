"""How ranges on the behaviour axis are spread over the programs of a kernel."""

from typing import NamedTuple

import torch
from torch import Tensor


class Items(NamedTuple):
    """Ranges cut into pieces, so that a long one keeps no program busy for long.

    Attributes:
        owners: int64 `[I]` the range of each piece.
        places: int64 `[I]` which piece of its range it is.
        begins: int64 `[G + 1]` where the pieces of each range begin.
    """

    owners: Tensor
    places: Tensor
    begins: Tensor


def cut_into_pieces(lengths: Tensor, size: int) -> Items:
    """Cuts ranges of the given lengths `[G]` into pieces of at most `size`; an empty one has none.

    Waits for the device, since the number of pieces is data.
    """
    counts = (lengths + size - 1) // size
    begins = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    owners = torch.repeat_interleave(counts)
    places = torch.arange(owners.shape[0], device=lengths.device) - begins[owners]
    return Items(owners, places, begins)


def sort_windows(windows: Tensor, *, longer_than: int) -> Tensor:
    """Returns the places of the windows `[C, 2]` that are longer, by their begin, then end."""
    kept = (windows[:, 1] - windows[:, 0] > longer_than).nonzero()[:, 0]
    by_end = kept[windows[kept, 1].argsort(stable=True)]
    return by_end[windows[by_end, 0].argsort(stable=True)]


def cut_runs(fresh: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cuts a sequence into groups of at most `size` that lie within one run.

    Args:
        fresh: bool `[C]`, where a run begins.
        size: of the largest group.

    Returns:
        Two int64 `[G]`, begin and end of each group.
    """
    count = fresh.shape[0]
    position = torch.arange(count, device=fresh.device)
    run = torch.where(fresh, position, 0).cummax(0).values
    begins = position[(position - run) % size == 0]
    return begins, torch.cat([begins, position.new_full((1,), count)])[1:]


def find_overlapping(
    lows: Tensor, highs: Tensor, num_rows: int, tile: int
) -> tuple[Tensor, Tensor]:
    """Finds the ranges that each tile of rows has to look at.

    Args:
        lows: `[G]` begins of the ranges, ascending.
        highs: `[G]` their ends.
        num_rows: rows in all.
        tile: rows of a tile.

    Returns:
        Two `[T]`: ranges `first` to `last` contain all that overlap the tile.
    """
    begins = torch.arange(0, num_rows, tile, device=lows.device)
    reached = highs.cummax(0).values if len(highs) else highs
    # ranges up to the first that reaches into the tile are over, those from the last begin later
    return torch.searchsorted(reached, begins, right=True), torch.searchsorted(lows, begins + tile)
