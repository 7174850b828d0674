"""Rows of all ranks, with gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from ranker.distributed import gather_sizes, world_size


def gather_rows(rows: Tensor) -> Tensor:
    """Returns the rows of every rank, those of rank 0 first; ranks may have different numbers.

    Every rank gets the same and computes the same from it. The gradient of a rank's rows is the sum
    over the ranks, which the averaging of gradients over ranks makes right.

    Args:
        rows: [n, ...]; every rank calls.
    """
    if world_size() == 1:
        return rows
    sizes = gather_sizes(len(rows), rows.device)
    padding = [0, 0] * (rows.ndim - 1) + [0, max(sizes) - len(rows)]
    gathered = all_gather(F.pad(rows, padding).contiguous())  # type: ignore[no-untyped-call]
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])
