"""SDIM's signatures and sums word for word, one candidate at a time: the oracle of the tests."""

import torch
from torch import Tensor


def signatures_reference(embedded: Tensor, directions: Tensor, bits: int) -> Tensor:
    """Computes the same as `signatures`, slowly."""
    signs = (embedded @ directions >= 0).long()
    signs = signs.view(len(embedded), directions.shape[1] // bits, bits)
    return (signs * 2 ** torch.arange(bits)).sum(dim=2).to(torch.uint8)


def signature_sums_reference(
    behaviors: Tensor, codes: Tensor, wanted: Tensor, windows: Tensor
) -> Tensor:
    """Computes the same as `signature_sums`, slowly."""
    outputs = [behaviors[:0].sum(dim=0)]
    for candidate, (begin, end) in enumerate(windows.tolist()):
        seen, found = behaviors[begin:end], codes[begin:end]
        total = torch.zeros_like(outputs[0])
        for place, code in enumerate(wanted[candidate]):
            mine = seen[found[:, place] == code].sum(dim=0)
            # a sum of nothing has no direction
            total = total + (mine / mine.norm() if mine.any() else mine)
        outputs.append(total / wanted.shape[1])
    return torch.stack(outputs)[1:]
