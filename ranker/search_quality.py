"""Hit rate of a search: how much of what the attention would weigh most it finds."""

import json
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ranker.distributed import gather_to_main
from ranker.model import RankingModel
from ranker.modules.two_stage import TwoStageEncoder
from ranker.slots import SearchInputs
from ranker_data.batch import RankingBatch

# borders of the buckets of the history's length
_EDGES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_LEVEL = 0.95

IntArray = NDArray[np.int64]


class SearchQuality:
    """Collects, over the batches of an evaluation, how many of the exact top k were found.

    Exact are the k behaviours that the attention itself, with its present weights, scores highest
    (TWIN, section 5.4: hit rate of the GSU against the ESU).

    Args:
        name: of the encoder.
        encoder: whose search is measured.
    """

    def __init__(self, name: str, encoder: TwoStageEncoder) -> None:
        self.name, self.encoder = name, encoder
        self.pieces: list[IntArray] = []

    def __call__(self, inputs: SearchInputs, index: Tensor, batch: RankingBatch) -> None:
        """Adds a batch.

        Args:
            inputs: of the search.
            index: [C, k] what it found, -1 for none.
            batch: that the inputs are from; its rows of padding do not count.
        """
        exact = self.encoder.exact_search(inputs)
        columns = (
            batch.user,
            batch.windows[:, 1] - batch.windows[:, 0],
            count_common(index, exact),
            (exact >= 0).sum(dim=1),
        )
        rows = torch.stack([column.cpu() for column in columns], dim=1)
        self.pieces.append(rows[batch.sample_id.cpu() >= 0].numpy())

    def finish(self) -> dict[str, Any] | None:
        """Returns the summary on rank 0, None on the others; every rank calls it."""
        gathered = gather_to_main(np.concatenate(self.pieces))
        if gathered is None:
            return None
        rows = np.concatenate(gathered)
        # where there is nothing to find, there is no rate
        user, length, hits, wanted = rows[rows[:, 3] > 0].T
        rate = hits / wanted
        return {
            "encoder": self.name,
            "k": self.encoder.k,
            "hit_rate": float(rate.mean()) if len(rate) else None,
            "interval": clustered_interval(rate, user),
            "count": len(rate),
            "by_length": [
                {
                    "bucket": f"{low} to {high - 1}",
                    "hit_rate": float(rate[inside].mean()),
                    "count": int(inside.sum()),
                }
                for low, high in pairwise(_EDGES)
                if (inside := (length >= low) & (length < high)).any()
            ],
        }


def count_common(first: Tensor, second: Tensor) -> Tensor:
    """Returns [C] how many positions two selections [C, k] share; -1 is none."""
    rows = torch.arange(len(first), device=first.device).unsqueeze(1)
    size = int(torch.maximum(first.max(), second.max())) + 1 if len(first) else 1
    common = torch.isin(first + rows * size, second + rows * size) & (first >= 0)
    return common.sum(dim=1)


def clustered_interval(values: NDArray[np.float64], cluster: IntArray) -> list[float] | None:
    """Returns the 95 % interval of the mean, robust to users with many rows; None for one user."""
    users, place = np.unique(cluster, return_inverse=True)
    if len(users) < 2:
        return None
    mean = values.mean()
    residual = np.bincount(place, values - mean)
    error = np.sqrt(len(users) / (len(users) - 1) * (residual**2).sum()) / len(values)
    margin = NormalDist().inv_cdf((1 + _LEVEL) / 2) * error
    return [float(max(0.0, mean - margin)), float(min(1.0, mean + margin))]


def watch_searches(model: RankingModel) -> list[SearchQuality]:
    """Measures every search of a model from now on."""
    found = {n: e for n, e in model.body.encoders.items() if isinstance(e, TwoStageEncoder)}
    qualities = [SearchQuality(name, encoder) for name, encoder in found.items()]
    model.search.watchers = {quality.name: quality for quality in qualities}
    return qualities


def write_search_quality(folder: Path, qualities: list[SearchQuality]) -> None:
    """Writes search.json, or search-<encoder>.json if several search; every rank calls it."""
    for quality in qualities:
        summary = quality.finish()
        if summary is not None:
            name = "search.json" if len(qualities) == 1 else f"search-{quality.name}.json"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
