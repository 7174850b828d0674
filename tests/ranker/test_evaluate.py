"""What an evaluation keeps in memory."""

import dataclasses
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ranker.evaluate import predict
from ranker_data.batch import RankingBatch
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.schema import Schema


class Zero(nn.Module):
    def forward(self, batch: RankingBatch) -> Any:
        return None, {}, {"ctr": torch.zeros(batch.num_candidates)}


def test_an_evaluation_keeps_no_memory_of_a_batch(tiny_dataset: Path, tiny_schema: Schema) -> None:
    loader = RankingLoader(
        root=tiny_dataset,
        schema=tiny_schema,
        split="valid",
        options=LoaderOptions(batch_size=32, max_length=10),
        seed=0,
        shuffle=False,
        rank=0,
        world_size=1,
    )
    memory: list[weakref.ref[Any]] = []

    class Watched(RankingLoader):
        max_behaviors = None

        def __init__(self) -> None:
            pass

        def batches(self, epoch: int = 0, first_step: int = 0) -> Iterator[RankingBatch]:
            for batch in loader.batches():
                ids = batch.sample_id.numpy().copy()
                memory.append(weakref.ref(ids))
                yield dataclasses.replace(batch, sample_id=torch.from_numpy(ids))

    kept: list[weakref.ref[Any]] = []

    def look() -> None:
        # the last batch is still at hand
        kept.extend(array for array in memory[:-1] if array() is not None)

    predictions = predict(Zero(), Watched(), tiny_schema, torch.device("cpu"), after_batch=look)
    assert predictions is not None
    assert len(predictions.sample_id) == loader.plan.num_rows
    assert len(memory) > 2
    assert not kept
