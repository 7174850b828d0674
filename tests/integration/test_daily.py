"""Continuous training: day by day, resumable, the same on 2 ranks, and its deltas are complete."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

from ranker.checkpoint import Trainable, init_dense_state
from ranker.checkpoint_files import list_checkpoints
from ranker.checkpoint_tensors import read_tensors, tensor_shapes
from ranker.config import to_plain
from ranker.daily import (
    DELTA_FILE,
    DailyOptions,
    check_forgetting,
    rows_to_forget,
    train_daily,
)
from ranker.delta import apply_delta, read_delta
from ranker.derived_config import build_daily_job
from ranker.distributed import process_group
from ranker.forget import forget_rows
from ranker_data.days import count_ids, split_days
from ranker_data.reader import DataError
from ranker_data.schema import Schema

# 60 units of time become four days
SECONDS = 5760
DAYS = [f"1970-01-0{day}" for day in range(1, 5)]


@pytest.fixture
def four_days(tiny_dataset: Path, tmp_path: Path) -> Path:
    """The tiny data set, its times stretched."""
    root = tmp_path / "data"
    shutil.copytree(tiny_dataset, root)
    for path in root.rglob("part-*.parquet"):
        table = pq.read_table(path)
        index = table.schema.get_field_index("time")
        time = pa.array(table["time"].to_numpy() * SECONDS)
        pq.write_table(table.set_column(index, table.schema.field("time"), time), path)
    return root


def launch(runner: Any, name: str, data: Path, *overrides: str) -> Path:
    arguments = [*runner.overrides, f"dataset.path={data}", f"name={name}", *EPOCH, *overrides]
    with initialize_config_dir(str(runner.project_root / "configs"), version_base="1.3"):
        train_daily(*build_daily_job(to_plain(compose("train_daily", arguments))))
    return Path(runner.run_root) / name


EPOCH = ["trainer.epochs=1", "trainer.checkpoint_every_steps=1", "daily.keep_days=6"]
FORGETFUL = ["daily.min_count=12", "daily.expire_days=2"]


def read_days(run: Path) -> list[dict[str, Any]]:
    return [json.loads((run / day / "day.json").read_text()) for day in DAYS]


def weights(run: Path, day: str) -> dict[str, torch.Tensor]:
    path = list_checkpoints(run / day / "checkpoints")[-1]
    tensors = read_tensors(path, [key for key in tensor_shapes(path) if key.startswith("model.")])
    return {key.removeprefix("model."): value for key, value in tensors.items()}


def test_days_go_on_bit_identical_and_their_deltas_are_complete(
    runner: Any, four_days: Path
) -> None:
    whole = launch(runner, "whole", four_days, *FORGETFUL)
    records = read_days(whole)
    # nothing is learned before the first day
    assert records[0]["before"] == {}
    assert all("ctr.auc" in record["before"] for record in records[1:])
    assert all(record["forgotten_rows"]["user_id"] > 0 for record in records[1:])
    assert len((whole / "progressive.md").read_text().splitlines()) == 2 + len(DAYS)
    served = weights(whole, DAYS[0])
    for day in DAYS[1:]:
        served = apply_delta(served, read_delta(whole / day / DELTA_FILE))
        assert_equal(served, weights(whole, day))

    parts = launch(runner, "parts", four_days, *FORGETFUL, f"daily.last_day={DAYS[1]}")
    # the second day is stopped in its middle: only its first checkpoint is left
    (parts / DAYS[1] / "day.json").unlink()
    for path in list_checkpoints(parts / DAYS[1] / "checkpoints")[1:]:
        shutil.rmtree(path)
    launch(runner, "parts", four_days, *FORGETFUL)
    assert read_days(parts) == records
    assert_equal(weights(parts, DAYS[-1]), served)


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    "overrides", [[], ["sharding=column_wise"], ["sharding=data_parallel", "optimizer=adam_l2"]]
)
def test_a_forgotten_row_is_the_unknown_one(runner: Any, overrides: list[str]) -> None:
    job = runner.job("run", *overrides)
    chosen = torch.zeros(40, dtype=torch.bool)
    chosen[[3, 7]] = True
    with process_group("cpu") as process:
        trainable = job.build_trainable(process.device)
        init_dense_state(trainable.dense)
        weight, state = item_table(trainable)
        before = weight.clone()
        for value in state:
            value.fill_(2.0)
        forget_rows(trainable, {"item_id": chosen})
        weight, state = item_table(trainable)
    assert state
    assert torch.equal(weight[3], before[0])
    assert torch.equal(weight[7], before[0])
    assert torch.equal(weight[~chosen], before[~chosen])
    for value in state:
        assert not value[chosen].any()
        assert (value[~chosen] == 2).all()


def item_table(trainable: Trainable) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The table and its optimizer's state, on the only rank."""

    def local(value: Any) -> torch.Tensor:
        return value.local_shards()[0].tensor if isinstance(value, ShardedTensor) else value

    name, weight = next(
        (k, v) for k, v in trainable.model.state_dict().items() if k.endswith("item_id.weight")
    )
    states = trainable.optimizer.state_dict()["state"]
    memory = [local(v) for k, part in states.items() if k.endswith(name) for v in part.values()]
    return local(weight), [value for value in memory if value.dim() > 0]


def test_two_ranks_go_through_the_days_like_one(runner: Any, four_days: Path) -> None:
    few = ["daily.last_day=1970-01-02", "daily.min_count=2"]
    one = launch(runner, "one", four_days, *few)
    done = runner.torchrun(
        "two",
        *runner.overrides,
        f"dataset.path={four_days}",
        "name=two",
        *EPOCH,
        *few,
        script="train_daily",
    )
    assert done.returncode == 0, done.stderr
    two = Path(runner.run_root) / "two"
    for day in DAYS[:2]:
        first, second = (json.loads((run / day / "day.json").read_text()) for run in (one, two))
        assert second["forgotten_rows"] == first["forgotten_rows"]
        assert second["after"] == pytest.approx(first["after"], abs=1e-5)


def test_days_that_are_not_there_are_named(runner: Any, four_days: Path) -> None:
    with pytest.raises(DataError, match="it has 1970-01-01 to 1970-01-04"):
        launch(runner, "run", four_days, "daily.first_day=2024-01-01", "daily.last_day=2024-01-02")


def test_each_sample_is_in_the_split_of_its_day(four_days: Path, tiny_schema: Schema) -> None:
    counts = split_days(four_days, tiny_schema, ["train", "valid"])
    assert list(counts) == DAYS
    total = 0
    for split in ("train", "valid"):
        for path in sorted((four_days / "samples" / split).glob("*.parquet")):
            total += pq.read_metadata(path).num_rows
    assert sum(counts.values()) == total
    for number, day in enumerate(DAYS):
        for path in (four_days / "samples" / day).glob("*.parquet"):
            time = pq.read_table(path)["time"].to_numpy()
            assert (time // 86_400 == number).all()
    occurred = count_ids(four_days, tiny_schema, DAYS[0])
    assert occurred["item_id"].sum() > 0
    assert len(occurred["item_id"]) == 40


def test_rare_and_old_ids_are_forgotten_but_never_the_unknown_one() -> None:
    counts = [{"t": np.array(day)} for day in ([5, 1, 4, 0], [5, 1, 0, 0], [5, 0, 0, 0])]
    rare = rows_to_forget(counts, min_count=3, expire_days=None)["t"]
    assert rare.tolist() == [False, True, False, False]
    old = rows_to_forget(counts, min_count=0, expire_days=2)["t"]
    assert old.tolist() == [False, False, True, False]
    assert not rows_to_forget(counts[:1], min_count=0, expire_days=2)["t"].any()


def test_hashed_tables_are_left_out_and_told(runner: Any, tiny_schema: Schema) -> None:
    job = runner.job("x", "+embedding.hashed.item_id=30")
    assert check_forgetting(job, DailyOptions()) == []
    assert check_forgetting(job, DailyOptions(min_count=2)) == ["item_id"]
    every = [f"+embedding.hashed.{table.name}=30" for table in tiny_schema.tables]
    with pytest.raises(ValueError, match="all tables are hashed"):
        check_forgetting(runner.job("x", *every), DailyOptions(expire_days=3))
