"""When a behaviour happened, as seen from an impression: its place from the end, and its age."""

import torch
from torch import Tensor, nn

from ranker.modules.powers import floor_log2
from ranker.modules.windows import expand_windows


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


class RecentBehaviors(nn.Module):
    """e_j + P[place from the end] + T[bucket of the time gap], where windows are ranges.

    What is added depends on the impression, so each distinct (window, time) gets a copy of its
    behaviours: as many rows as requests times behaviours, instead of one for each behaviour.

    Args:
        dim: width D of a behaviour.
        max_positions: see `Recency`.
        time_buckets: see `Recency`.
    """

    def __init__(self, *, dim: int, max_positions: int, time_buckets: int) -> None:
        super().__init__()
        self.recency = Recency(dim=dim, max_positions=max_positions, time_buckets=time_buckets)

    def forward(
        self, behaviors: Tensor, behavior_time: Tensor, windows: Tensor, time: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the behaviours [P, D] as impressions see them, and the windows [C, 2] on them.

        Args:
            behaviors: [N, D].
            behavior_time: [N] int64.
            windows: [C, 2] int64 begin and end.
            time: [C] int64 of the impressions.
        """
        if self.recency.gaps is None:
            # who sees the same window sees the same places
            time = torch.zeros_like(time)
        seen = torch.cat([windows, time.unsqueeze(1)], dim=1)
        distinct, slot = torch.unique(seen, dim=0, return_inverse=True)
        begins, ends, times = distinct.unbind(1)
        rows, offsets = expand_windows(distinct[:, :2])
        owner = torch.repeat_interleave(ends - begins, output_size=len(rows))
        recency = self.recency(ends[owner] - 1 - rows, times[owner] - behavior_time[rows])
        copies = behaviors[rows] if recency is None else behaviors[rows] + recency
        return copies, torch.stack([offsets[slot], offsets[slot + 1]], dim=1)


def time_bucket(gaps: Tensor, num_buckets: int) -> Tensor:
    """Returns floor(log2(1 + gap)), at most num_buckets - 1; a negative gap counts as 0."""
    return floor_log2(gaps.clamp_min(0) + 1).clamp_max(num_buckets - 1)


def places_from_the_end(lengths: Tensor, num_places: int) -> Tensor:
    """Returns [G, num_places]: 0 for the last of each window's `lengths`, 1 before it, ..."""
    steps = torch.arange(num_places, device=lengths.device)
    return (lengths.unsqueeze(1) - 1 - steps).clamp_min(0)
