"""The search as the paper tells it, one candidate and one step at a time: the tests' oracle."""

import torch
from torch import Tensor


def search_topk_reference(
    query: Tensor, keys: Tensor, bias: Tensor | None, windows: Tensor, k: int
) -> Tensor:
    """Computes the same as `search_topk`, slowly."""
    index = torch.full((len(query), k), -1)
    for candidate, (begin, end) in enumerate(windows.tolist()):
        scores = query[candidate] @ keys[begin:end].T
        if bias is not None:
            scores = scores + bias[begin:end].T
        ranked = scores.argsort(dim=1, descending=True, stable=True).tolist()
        chosen = sorted(walk(ranked, k))
        index[candidate, : len(chosen)] = torch.tensor(chosen, dtype=torch.int64) + begin
    return index


def walk(ranked: list[list[int]], k: int) -> list[int]:
    """Takes turns among ranked lists until there are k different positions, or no more."""
    collected: dict[int, None] = {}
    for turn in zip(*ranked, strict=True):
        for position in turn:
            if len(collected) < k:
                collected.setdefault(position)
    return list(collected)
