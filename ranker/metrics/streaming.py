"""Metrics of the rows that training has just seen: binned, on the device, with an error bound.

For curves while training only. What is reported of a model is exact (`ranker.metrics.auc`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ranker.distributed import sum_over_ranks

# logits beyond share the outermost bins
LIMIT = 16.0
# rows that wait to be counted together: a step of few rows would spend more on calls than on rows
_WAITING_ROWS = 1 << 15


@dataclass(frozen=True, kw_only=True)
class StreamedAuc:
    """An AUC of binned scores.

    The exact AUC of the same rows is within `error_bound`: pairs in different bins are ordered as
    they are, a pair inside one counts one half where it may be 0 or 1, so that the error is at most
    half the share of pairs inside bins, sum_b p_b n_b / (2 P N).
    """

    value: float
    error_bound: float


class StreamedMetrics:
    """AUC and PCOC of one task over the rows since the last reading, in bounded memory.

    Args:
        num_bins: of equal width between logits of -LIMIT and LIMIT.
        device: of what is added.
    """

    def __init__(self, *, num_bins: int = 1 << 15, device: torch.device) -> None:
        if num_bins < 1:
            raise ValueError(f"num_bins is {num_bins}; give at least 1")
        self.num_bins = num_bins
        # weight of the negatives and of the positives in every bin
        self._counts = torch.zeros(2, num_bins, dtype=torch.float64, device=device)
        self._predicted = torch.zeros((), dtype=torch.float64, device=device)
        # logits, whether positive, and weights [C] of each call since the last count
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, logits: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Adds rows.

        Args:
            logits: [C].
            labels: [C] 0 or 1.
            weights: [C] not negative; 0 leaves a row out.
        """
        # of their own: the caller may go on with its tensors
        own = (logits.detach().to(torch.float64, copy=True), labels > 0.5)
        self._waiting.append((*own, weights.to(torch.float64, copy=True)))
        if sum(len(waiting) for waiting, _, _ in self._waiting) >= _WAITING_ROWS:
            self._count()

    def _count(self) -> None:
        if not self._waiting:
            return
        logits, positive, weights = map(torch.cat, zip(*self._waiting, strict=True))
        self._waiting.clear()
        # what is not a number is told of elsewhere; it must not break an index here
        weights = weights * logits.isfinite()
        logits = logits.nan_to_num()
        inside = logits.clamp(-LIMIT, LIMIT)
        place = ((inside + LIMIT) * (self.num_bins / (2 * LIMIT))).long()
        place = place.clamp(max=self.num_bins - 1) + positive.long() * self.num_bins
        self._counts.view(-1).index_add_(0, place, weights)
        self._predicted += (logits.sigmoid() * weights).sum()

    def read(self) -> dict[str, float]:
        """Returns `auc`, `auc_error_bound` and `pcoc` over all ranks, and begins anew.

        Every rank calls it. What is undefined is left out.
        """
        self._count()
        totals = sum_over_ranks(torch.cat([self._counts.view(-1), self._predicted.view(1)]))
        self._counts.zero_()
        self._predicted.zero_()
        negative, positive = totals[:-1].view(2, -1).cpu()
        found: dict[str, float] = {}
        auc = auc_of_bins(negative, positive)
        if auc is not None:
            found = {"auc": auc.value, "auc_error_bound": auc.error_bound}
        if positive.sum() > 0:
            found["pcoc"] = float(totals[-1] / positive.sum())
        return found


def auc_of_bins(negative: Tensor, positive: Tensor) -> StreamedAuc | None:
    """AUC from the weight of each class in B ascending bins; None if a class is missing.

    Args:
        negative: [B].
        positive: [B].
    """
    pairs = float(negative.sum() * positive.sum())
    if pairs == 0:
        return None
    below = negative.cumsum(0) - negative
    inside = float(positive @ negative)
    value = (float(positive @ below) + inside / 2) / pairs
    return StreamedAuc(value=value, error_bound=inside / 2 / pairs)


def read_all(tasks: Mapping[str, StreamedMetrics]) -> dict[str, float]:
    """The readings of several tasks as `task.metric`; every rank calls it."""
    return {
        f"{task}.{name}": value
        for task, metrics in tasks.items()
        for name, value in metrics.read().items()
    }
