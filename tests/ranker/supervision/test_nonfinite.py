from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ranker.supervision.nonfinite import LossWatch, inspect_batch, write_batch
from ranker_data.batch import RankingBatch
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.schema import Schema


@pytest.fixture
def batch(tiny_dataset: Path, tiny_schema: Schema) -> RankingBatch:
    loader = RankingLoader(
        root=tiny_dataset,
        schema=tiny_schema,
        split="train",
        options=LoaderOptions(batch_size=32, max_length=5, num_streams=4),
        seed=0,
        shuffle=True,
        rank=0,
        world_size=1,
    )
    return next(iter(loader.batches()))


def test_the_first_broken_step_is_remembered() -> None:
    watch = LossWatch(torch.device("cpu"))
    for step, loss in enumerate([1.0, 2.0, float("inf"), float("nan")], start=1):
        watch.see(torch.tensor(loss), step)
    assert watch.seen() == watch.read() == 3


def test_extreme_values_are_named_with_their_rows(batch: RankingBatch, tiny_schema: Schema) -> None:
    assert inspect_batch(batch, tiny_schema) == []
    batch.candidate_dense[3, 0] = 1e30
    sample = int(batch.sample_id[3])
    (line,) = inspect_batch(batch, tiny_schema)
    assert line.startswith("field price has 1 values more than 100 standard deviations")
    assert f"1e+30 (sample {sample})" in line


def test_a_batch_is_written_row_by_row(
    batch: RankingBatch, tiny_schema: Schema, tmp_path: Path
) -> None:
    write_batch(batch, tiny_schema, tmp_path / "debug" / "batch.parquet")
    table = pq.read_table(tmp_path / "debug" / "batch.parquet")
    assert table["sample_id"].to_pylist() == batch.sample_id.tolist()
    ages = batch.user_dense[batch.user_of, 0].numpy()
    assert np.array_equal(table["dense.age"].to_numpy(), ages)
    undefined = [value is None for value in table["label.buy"].to_pylist()]
    assert undefined == [mask == 0 for mask in batch.label_mask[:, 1].tolist()]
