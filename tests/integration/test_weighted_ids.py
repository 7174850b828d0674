"""Ids with weights, from raw lists to training on one and on two ranks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ranker.modules.features import Lookup
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.preparation.prepare import prepare
from ranker_data.schema import Field, Label, Task, read_schema

T0 = 1_600_000_000
PLAN = Preparation(
    name="weighted",
    time_unit="s",
    fields=(
        Field(name="user_id", kind="id", side="user", table="user"),
        Field(name="traits", kind="ids", side="user", table="trait", weighted=True),
        Field(name="item_id", kind="id", table="item"),
        Field(name="tags", kind="ids", table="tag", weighted=True),
    ),
    behaviors=(Field(name="item_id", kind="id", table="item"),),
    labels=(Label(name="click"),),
    tasks=(Task(name="ctr", label="click"),),
    split=TimeSplit(valid_fraction=0.1, test_fraction=0.1),
    num_parts=4,
)


def raw(num_rows: int) -> tuple[pa.Table, pa.Table]:
    """Samples that all have the tags a and b: only their weights tell the labels."""
    draw = np.random.default_rng(3)
    share = draw.random(num_rows)
    user = draw.integers(0, 40, num_rows)
    time = T0 + np.arange(num_rows)
    samples: dict[str, Any] = {
        "user": user,
        "time": time,
        "user_id": user,
        "traits": [["x", "y"]] * num_rows,
        "traits.weight": [[1.0, float(u)] for u in user],
        "item_id": draw.integers(0, 20, num_rows),
        "tags": [["a", "b"]] * num_rows,
        "tags.weight": [[s, 1.0 - s] for s in share],
        "click": (share > 0.5).astype(np.int64),
    }
    events = {"user": user, "time": time - 5, "item_id": draw.integers(0, 20, num_rows)}
    return pa.table(events), pa.table(samples)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    events, samples = raw(2000)
    prepare(PLAN, events=events, samples=samples, out=tmp_path / "data")
    return tmp_path / "data"


def test_a_batch_has_the_weight_of_every_id(dataset: Path) -> None:
    loader = RankingLoader(
        root=dataset,
        schema=read_schema(dataset),
        split="train",
        options=LoaderOptions(batch_size=64, max_length=5, num_streams=4),
        seed=1,
        shuffle=True,
        rank=0,
        world_size=1,
    )
    batch = next(iter(loader.batches()))
    assert batch.bag_weights.keys() == {"tags", "traits"}
    tags = batch.bag_weights["tags"].view(64, 2)
    torch.testing.assert_close(tags.sum(1), torch.ones(64))
    assert torch.equal((tags[:, 0] > 0.5).float(), batch.labels[:, 0])
    assert len(batch.bag_weights["traits"]) == 2 * batch.num_users
    assert batch.to(torch.device("cpu")).bag_weights.keys() == {"tags", "traits"}


def test_lookup_takes_the_weighted_mean() -> None:
    vectors = {"tags": torch.arange(10.0).view(5, 2).requires_grad_()}
    lengths = {"tags": torch.tensor([2, 0, 1, 2])}
    weights = {"tags": torch.tensor([1.0, 3.0, 2.0, 0.0, 0.0])}
    pooled = Lookup(vectors, lengths, bag_weights=weights)("tags")
    expected = torch.tensor([[1.5, 2.5], [0.0, 0.0], [4.0, 5.0], [0.0, 0.0]])
    torch.testing.assert_close(pooled, expected)
    pooled.sum().backward()  # type: ignore[no-untyped-call]
    found = vectors["tags"].grad
    assert found is not None
    torch.testing.assert_close(found[:, 0], torch.tensor([0.25, 0.75, 1.0, 0.0, 0.0]))


def test_weights_are_learned_from_alike_on_one_and_two_ranks(
    dataset: Path, make_runner: Callable[[Path], Any]
) -> None:
    runner = make_runner(dataset)
    settings = ["trainer.epochs=4", "optimizer.dense_lr=0.02", "optimizer.sparse_lr=0.1"]
    settings += ["embedding.init_std=0.1"]
    runner.alone("one", *settings)
    done = runner.torchrun("two", *settings)
    assert done.returncode == 0, done.stderr
    one, two = runner.records("one"), runner.records("two")
    assert len(one) == len(two)
    losses = [[r["loss"] for r in records if "loss" in r] for records in (one, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    # without weights all samples look alike
    scores = [value for r in one for key, value in r.items() if key.endswith("ctr.auc")]
    assert scores[-1] > 0.9
