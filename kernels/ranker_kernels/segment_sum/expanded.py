"""Sums over windows in PyTorch."""

import torch
from torch import Tensor

from ranker_kernels.din_attention.windows import expand_windows


def forward(values: Tensor, windows: Tensor) -> Tensor:
    """Returns the sum of each window's rows, `[C, D]`."""
    if _are_consecutive(windows):
        first, last = int(windows[0, 0]), int(windows[-1, 1])
        rows = torch.arange(first, last, device=windows.device)
        offsets = windows[:, 0] - first
    else:
        _, rows, offsets = expand_windows(windows)
    # the arguments are scale_grad_by_freq, mode "sum", and sparse
    return torch.embedding_bag(values, rows, offsets, False, 0, False)[0]


def backward(gradient: Tensor, windows: Tensor, num_rows: int) -> Tensor:
    """Returns for each row the sum of the gradients `[C, D]` of the windows that cover it."""
    total = gradient.new_zeros(num_rows, gradient.shape[1])
    if _are_consecutive(windows):
        first, last = int(windows[0, 0]), int(windows[-1, 1])
        lengths = windows[:, 1] - windows[:, 0]
        owner = torch.repeat_interleave(lengths, output_size=last - first)
        torch.index_select(gradient, 0, owner, out=total[first:last])
        return total
    candidate, behavior, _ = expand_windows(windows)
    return total.index_add_(0, behavior, gradient.index_select(0, candidate))


def _are_consecutive(windows: Tensor) -> bool:
    """Whether each window begins where the one before it ends, as bags do."""
    return len(windows) > 0 and torch.equal(windows[1:, 0], windows[:-1, 1])
