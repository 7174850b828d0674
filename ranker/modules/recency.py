"""When a behaviour happened, as seen from an impression: its place from the end, and its age."""

import torch
from torch import Tensor, nn


class Recency(nn.Module):
    """P[place from the end] + T[floor(log2(1 + time gap))]; both are optional.

    Buckets that double in width serve seconds as well as months, in any unit of time.

    Args:
        dim: width D of a behaviour.
        max_positions: places that have a vector of their own, 1 is the latest; older ones share the
            last one. 0 leaves the place out.
        time_buckets: buckets of the time gap; longer gaps share the last one. 0 leaves it out.

    Raises:
        ValueError: a number is negative.
    """

    def __init__(self, *, dim: int, max_positions: int, time_buckets: int) -> None:
        super().__init__()
        for name, value in (("max_positions", max_positions), ("time_buckets", time_buckets)):
            if value < 0:
                raise ValueError(f"sequence {name} is {value}; must be at least 0")
        self.positions = nn.Embedding(max_positions, dim) if max_positions else None
        self.gaps = nn.Embedding(time_buckets, dim) if time_buckets else None
        for table in (self.positions, self.gaps):
            if table is not None:
                nn.init.normal_(table.weight, std=0.01)

    def forward(self, positions: Tensor, gaps: Tensor) -> Tensor | None:
        """Returns what is added to the behaviours.

        Args:
            positions: [*] int64, 0 is the latest behaviour of the window.
            gaps: [*] int64 time from the behaviour to the impression.

        Returns:
            [*, D], or None if both are left out.
        """
        parts = []
        if self.positions is not None:
            parts.append(self.positions(positions.clamp(0, self.positions.num_embeddings - 1)))
        if self.gaps is not None:
            parts.append(self.gaps(time_bucket(gaps, self.gaps.num_embeddings)))
        return sum(parts[1:], parts[0]) if parts else None


def time_bucket(gaps: Tensor, num_buckets: int) -> Tensor:
    """Returns floor(log2(1 + gap)), at most num_buckets - 1; a negative gap counts as 0."""
    return (gaps.clamp_min(0) + 1).double().log2().floor().long().clamp_max(num_buckets - 1)


def places_from_the_end(lengths: Tensor, num_places: int) -> Tensor:
    """Returns [G, num_places]: 0 for the last of each window's `lengths`, 1 before it, ..."""
    steps = torch.arange(num_places, device=lengths.device)
    return (lengths.unsqueeze(1) - 1 - steps).clamp_min(0)
