"""Ranges on the behaviour axis as flat indices."""

import torch
from torch import Tensor


def expand_windows(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Lists the behaviours of every window.

    Args:
        windows: [C, 2] int64 begin and end.

    Returns:
        rows: [P] the behaviour rows of window 0, then of window 1, ...
        offsets: [C + 1] where each window begins in `rows`.
    """
    lengths = windows[:, 1] - windows[:, 0]
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    total = int(offsets[-1])
    shift = torch.repeat_interleave(windows[:, 0] - offsets[:-1], lengths, output_size=total)
    return torch.arange(total, device=windows.device) + shift, offsets


def latest_behaviors(windows: Tensor, max_length: int | None) -> Tensor:
    """Cuts windows [C, 2] down to their latest `max_length` behaviours; None cuts nothing."""
    if max_length is None:
        return windows
    begin, end = windows.unbind(1)
    return torch.stack([torch.maximum(begin, end - max_length), end], dim=1)


def check_max_length(encoder: str, max_length: int | None) -> None:
    """Checks how many behaviours an encoder looks at.

    Raises:
        ValueError: less than one.
    """
    if max_length is not None and max_length < 1:
        raise ValueError(
            f"{encoder} max_length is {max_length}; must be at least 1, or null for all"
        )
