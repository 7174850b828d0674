"""Ids without a vocabulary, from raw values to training and evaluation on one and on two ranks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.preparation.prepare import prepare
from ranker_data.schema import Field, Label, Task, read_schema

PLAN = Preparation(
    name="hashed",
    time_unit="s",
    fields=(
        Field(name="user_id", kind="id", side="user", table="user"),
        Field(name="item_id", kind="id", table="item"),
    ),
    behaviors=(Field(name="item_id", kind="id", table="item"),),
    labels=(Label(name="click"),),
    tasks=(Task(name="ctr", label="click"),),
    split=TimeSplit(valid_fraction=0.1, test_fraction=0.1),
    hashed={"user": None, "item": None},
    num_parts=4,
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Clicks that nothing but the item tells."""
    draw = np.random.default_rng(3)
    user, item, past = (draw.integers(0, n, 2000) for n in (40, 30, 30))
    time = 1_600_000_000 + np.arange(2000)
    samples = {
        "user": user,
        "time": time,
        "user_id": [f"user {u}" for u in user],
        "item_id": [f"item {i}" for i in item],
        "click": (draw.random(2000) < np.where(item % 2, 0.9, 0.1)).astype(np.int64),
    }
    events = {"user": user, "time": time - 5, "item_id": [f"item {i}" for i in past]}
    out = tmp_path / "data"
    prepare(PLAN, events=pa.table(events), samples=pa.table(samples), out=out)
    return out


def test_ids_are_wide_hashes(dataset: Path) -> None:
    schema = read_schema(dataset)
    assert all(table.num_embeddings is None for table in schema.tables)
    loader = RankingLoader(
        root=dataset,
        schema=schema,
        split="train",
        options=LoaderOptions(batch_size=64, max_length=5, num_streams=4),
        seed=1,
        shuffle=True,
        rank=0,
        world_size=1,
    )
    batch = next(iter(loader.batches()))
    assert batch.ids["item_id"].values().max() > 2**40
    assert batch.ids["item_id"].values().min() > 0


def test_they_are_learned_from_alike_on_one_and_two_ranks(
    dataset: Path, make_runner: Callable[[Path], Any]
) -> None:
    runner = make_runner(dataset)
    with pytest.raises(ValueError, match=r"no vocabulary.*\+embedding.hashed.user=<rows>"):
        runner.alone("none")
    settings = ["sequence=[din]", "+embedding.hashed={user: 200, item: 500}"]
    settings += ["optimizer.dense_lr=0.02", "optimizer.sparse_lr=0.1", "embedding.init_std=0.1"]
    runner.alone("one", *settings)
    done = runner.torchrun("two", *settings)
    assert done.returncode == 0, done.stderr
    assert "ids without a vocabulary in 500 rows" in done.stderr + done.stdout
    one, two = runner.records("one"), runner.records("two")
    losses = [[r["loss"] for r in records if "loss" in r] for records in (one, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    scores = [value for r in one for key, value in r.items() if key.endswith("ctr.auc")]
    assert scores[-1] > 0.8
    for name in ("one", "two"):
        done = runner.torchrun("", f"run={runner.run_root / name}", ranks=2, script="evaluate")
        assert done.returncode == 0, done.stderr
