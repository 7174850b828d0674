"""In how many samples of a batch an id is."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ranker.modules.windows import expand_windows


def count_samples(places: Sequence[Tensor], windows: Sequence[Tensor], num_ids: int) -> Tensor:
    """Counts the samples that contain each id; an id counts once a sample.

    Args:
        places: for each key, the number of the id at each place of it, in [0, num_ids).
        windows: for each key, [C, 2] begin and end of the places that belong to a sample.
        num_ids: distinct ids.

    Returns:
        [num_ids] int64.
    """
    pairs = []
    for place, window in zip(places, windows, strict=True):
        rows, offsets = expand_windows(window)
        sample = torch.repeat_interleave(offsets.diff(), output_size=len(rows))
        pairs.append(sample * num_ids + place[rows])
    distinct = torch.cat(pairs).unique()  # type: ignore[no-untyped-call]
    # bincount would ask the device for the largest
    counts: Tensor = distinct.new_zeros(num_ids).index_add(
        0, distinct % num_ids, torch.ones_like(distinct)
    )
    return counts


def sample_windows(rows: Tensor, key: str, bag_lengths: Mapping[str, Tensor]) -> Tensor:
    """Turns ranges of a key's rows into ranges of its ids, which are more where it has bags.

    Args:
        rows: [C, 2] begin and end of the rows that belong to a sample.
        key: of the batch.
        bag_lengths: ids of each row, by multi-valued key.
    """
    if key not in bag_lengths:
        return rows
    return F.pad(bag_lengths[key].cumsum(0), (1, 0))[rows]
