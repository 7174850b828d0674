import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.schema import read_schema
from ranker_data.simulator.world import WorldConfig

SMALL = WorldConfig(
    num_users=120, num_items=150, num_categories=10, events_per_user=30, requests_per_user=6
)


def read(folder: Path) -> pa.Table:
    return pa.concat_tables(
        [pq.read_table(p, partitioning=None) for p in sorted(folder.glob("*.parquet"))]
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "out"
    SyntheticConverter(world=SMALL, num_parts=3).prepare(None, out)
    return out


def test_same_seed_gives_the_same_files_for_any_number_of_workers(
    small: Path, tmp_path: Path
) -> None:
    SyntheticConverter(world=SMALL, num_parts=3, num_workers=2).prepare(None, tmp_path / "out")
    paths = sorted(path for path in small.rglob("*") if path.is_file())
    assert len(paths) == 3 * 4 + 2
    for path in paths:
        assert (tmp_path / "out" / path.relative_to(small)).read_bytes() == path.read_bytes()


def test_another_seed_gives_other_data(small: Path, tmp_path: Path) -> None:
    SyntheticConverter(world=dataclasses.replace(SMALL, seed=1), num_parts=3).prepare(
        None, tmp_path / "out"
    )
    assert read(tmp_path / "out" / "samples" / "train") != read(small / "samples" / "train")


def test_files_are_complete(small: Path) -> None:
    schema = read_schema(small)
    assert schema.domain_names == ("unknown", "domain_1", "domain_2", "domain_3")
    assert [task.name for task in schema.tasks] == ["ctr", "cvr", "ctcvr", "like", "long_view"]
    stats = json.loads((small / "stats.json").read_text())
    assert stats["behaviors"]["num_rows"] == read(small / "behaviors").num_rows
    samples = {split: read(small / "samples" / split) for split in ("train", "valid", "test")}
    for split, table in samples.items():
        assert stats["samples"][split]["num_rows"] == table.num_rows > 0
    last = {split: pc.max(table["time"]).as_py() for split, table in samples.items()}
    first = {split: pc.min(table["time"]).as_py() for split, table in samples.items()}
    assert last["train"] < first["valid"] <= last["valid"] < first["test"]
    ids = pa.concat_tables(samples.values())["sample_id"]
    assert len(ids.unique()) == len(ids)
    # every request shows five items to one user at one time in one domain
    table = pa.concat_tables(samples.values())
    names = ("user", "time", "domain", "position")
    grouped = table.group_by("request").aggregate([(name, "count_distinct") for name in names])
    for name in ("user", "time", "domain"):
        assert pc.max(grouped[f"{name}_count_distinct"]).as_py() == 1
    assert pc.unique(grouped["position_count_distinct"]).to_pylist() == [5]


def test_every_click_becomes_an_event(small: Path) -> None:
    clicks = sum(
        int(pc.sum(read(small / "samples" / split)["click"]).as_py())
        for split in ("train", "valid", "test")
    )
    kinds = read(small / "behaviors")["event_type"].to_numpy()
    assert (kinds >= 2).sum() == clicks


def test_dense_fields_are_measured_before_validation(small: Path) -> None:
    schema = read_schema(small)
    train = read(small / "samples" / "train")
    field = next(f for f in schema.fields if f.name == "log_price")
    assert field.mean == pytest.approx(np.mean(train["log_price"].to_numpy()), rel=1e-4)
    assert field.std == pytest.approx(np.std(train["log_price"].to_numpy()), rel=1e-4)
    events = read(small / "behaviors")
    past = events["time"].to_numpy() < SMALL.split_times[0]
    dwell = next(f for f in schema.behaviors if f.name == "log_dwell")
    assert dwell.mean == pytest.approx(events["log_dwell"].to_numpy()[past].mean(), rel=1e-4)


def test_blocks_bound_memory_and_do_not_change_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranker_data.datasets.synthetic._ROWS_PER_BLOCK", 700)
    schema = SyntheticConverter(world=SMALL, num_parts=2).prepare(None, tmp_path / "out")
    # the reader's checks ran on all parts: order, histories, ids, labels
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["num_users"] == SMALL.num_users
    assert schema.table("user").num_embeddings == SMALL.num_users + 1


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"num_parts \(0\) must be at least 1"):
        SyntheticConverter(num_parts=0)
    with pytest.raises(ValueError, match="has no source"):
        SyntheticConverter().prepare(tmp_path, tmp_path / "out")
