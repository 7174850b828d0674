"""The search one bit at a time: the tests' oracle."""

import torch
from torch import Tensor


def hamming_topk_reference(query: Tensor, keys: Tensor, windows: Tensor, k: int) -> Tensor:
    """Computes the same as `hamming_topk`, slowly."""
    index = torch.full((len(query), k), -1)
    for candidate, (begin, end) in enumerate(windows.tolist()):
        code = query[candidate].tolist()
        distance = {
            j: sum(
                ((a ^ b) % 2**64).bit_count() for a, b in zip(code, keys[j].tolist(), strict=True)
            )
            for j in range(begin, end)
        }
        chosen = sorted(sorted(distance, key=lambda j: (distance[j], -j))[:k])
        index[candidate, : len(chosen)] = torch.tensor(chosen, dtype=torch.int64)
    return index
