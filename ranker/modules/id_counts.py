"""Values that belong to ids, each kept by the rank that owns the id."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from ranker.distributed import world_size


def own_ids(num_ids: int, rank: int | None = None) -> range:
    """Returns the ids of a table that a rank (this one by default) owns: a block of them."""
    if rank is None:
        rank = dist.get_rank() if world_size() > 1 else 0
    block = _block(num_ids)
    return range(min(rank * block, num_ids), min((rank + 1) * block, num_ids))


def _block(num_ids: int) -> int:
    return max(-(-num_ids // world_size()), 1)


def ask_owners(
    ids: Tensor, sums: Tensor, *, num_ids: int, answer: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Asks the owner of each local id, who sees what all ranks say of it, added up.

    What a rank sends and keeps does not grow with the number of ranks.

    Args:
        ids: [n] int64, each once, ascending; every rank calls.
        sums: [n, k] int64 what this rank adds to each of them.
        num_ids: of the table.
        answer: maps ids of this rank, counted from its first [m], and their totals [m, k] to [m].

    Returns:
        [n] the answers.
    """
    size = world_size()
    if size == 1:
        return answer(ids, sums)
    edges = torch.arange(size + 1, device=ids.device) * _block(num_ids)
    sent = torch.searchsorted(ids, edges).diff()
    received = _exchange(sent, [1] * size, [1] * size)
    # read at once: a GPU is waited for
    sizes, answer_sizes = torch.stack([sent, received]).tolist()
    asked = _exchange(torch.cat([ids.unsqueeze(1), sums], dim=1), sizes, answer_sizes)
    owned, place = asked[:, 0].unique(return_inverse=True)  # type: ignore[no-untyped-call]
    totals = sums.new_zeros(len(owned), sums.shape[1]).index_add(0, place, asked[:, 1:])
    answers = answer(owned - own_ids(num_ids).start, totals)
    return _exchange(answers[place], answer_sizes, sizes)


def _exchange(values: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """Sends the first sent[0] rows to rank 0, the next to rank 1, ..., and returns what came."""
    target = values.new_empty(sum(received), *values.shape[1:])
    dist.all_to_all_single(target, values.contiguous(), received, sent)
    return target
