"""Counts of ids over all ranks, each kept and added up by the rank that owns the id."""

import torch
import torch.distributed as dist
from torch import Tensor

from ranker.distributed import world_size


def owner_values(ids: Tensor, counts: Tensor, weights: Tensor) -> Tensor:
    """Returns weights[j] / (how often id j is in the global batch) for each local id.

    Ids go to their owner (id modulo the number of ranks), who adds up and answers: what a rank
    sends and keeps does not grow with the number of ranks.

    Args:
        ids: [n] int64, each once; every rank calls.
        counts: [n] how often this rank has each of them.
        weights: of the ids that this rank owns: entry k is that of id k * world size + rank.

    Returns:
        [n] in the type of `weights`.
    """
    size = world_size()
    order = torch.argsort(ids % size, stable=True)
    sent = torch.bincount(ids % size, minlength=size)
    received = _exchange(sent, [1] * size, [1] * size)
    sizes, answer_sizes = sent.tolist(), received.tolist()
    pairs = _exchange(torch.stack([ids, counts], dim=1)[order], sizes, answer_sizes)
    owned, place = pairs[:, 0].unique(return_inverse=True)  # type: ignore[no-untyped-call]
    totals = torch.zeros_like(owned).index_add(0, place, pairs[:, 1])
    answers = weights[owned // size] / totals
    answered = _exchange(answers[place], answer_sizes, sizes)
    return torch.empty_like(answered).index_copy(0, order, answered)


def _exchange(values: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """Sends the first sent[0] rows to rank 0, the next to rank 1, ..., and returns what came."""
    if world_size() == 1:
        return values
    target = values.new_empty(sum(received), *values.shape[1:])
    dist.all_to_all_single(target, values.contiguous(), received, sent)
    return target
