import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.clustering.events import ClusteringOptions
from ranker_data.clustering.prepare import cluster_histories
from ranker_data.clustering.reuse import CLUSTERING_FILE
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.layout import SPLITS, behaviors_path, samples_path
from ranker_data.schema import read_schema
from ranker_data.simulator.world import WorldConfig

NUM_PARTS = 3
VECTORS = np.random.default_rng(5).normal(size=(101, 4)).astype(np.float32)
OPTIONS = ClusteringOptions(field="item_id", max_size=8)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = WorldConfig(num_users=40, num_items=100, num_categories=10, requests_per_user=8)
    root = tmp_path_factory.mktemp("clustering") / "source"
    SyntheticConverter(world=world, num_parts=NUM_PARTS).prepare(None, root)
    return root


@pytest.fixture(scope="module")
def clustered(source: Path) -> Path:
    out = source.parent / "clustered"
    cluster_histories(source, out, VECTORS, OPTIONS)
    return out


def read(path: Path) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = pq.read_table(path).to_pydict()
    return columns


def test_samples_keep_everything_but_the_place_in_the_history(
    source: Path, clustered: Path
) -> None:
    for part in range(NUM_PARTS):
        num_events = len(read(behaviors_path(source, part))["user"])
        after = read(behaviors_path(clustered, part))
        user, time, size = (np.array(after[name]) for name in ("user", "time", "cluster_size"))
        assert size.sum() == num_events
        assert size.max() <= 8
        assert len(size) < 0.7 * num_events
        for split in SPLITS:
            old = read(samples_path(source, split, part))
            new = read(samples_path(clustered, split, part))
            was, now = old.pop("history_end"), new.pop("history_end")
            assert old == new
            # what a sample sees has the same events, and not one that is not earlier
            for sample, end in enumerate(now):
                mine = np.flatnonzero(user == old["user"][sample])[: int(end)]
                assert size[mine].sum() == was[sample]
                assert (time[mine] < old["time"][sample]).all()


def test_events_of_the_sampling_period_stay_alone(source: Path, clustered: Path) -> None:
    first: dict[float, float] = {}
    for part in range(NUM_PARTS):
        for split in SPLITS:
            samples = read(samples_path(source, split, part))
            for user, time in zip(samples["user"], samples["time"], strict=True):
                first[user] = min(time, first.get(user, time))
        events = read(behaviors_path(clustered, part))
        late = [
            size
            for user, time, size in zip(
                events["user"], events["time"], events["cluster_size"], strict=True
            )
            if user in first and time >= first[user]
        ]
        assert late
        assert set(late) == {1.0}


def test_any_number_of_workers_writes_the_same(
    source: Path, clustered: Path, tmp_path: Path
) -> None:
    cluster_histories(source, tmp_path / "two", VECTORS, OPTIONS, num_workers=2)
    files = sorted(p.relative_to(clustered) for p in clustered.rglob("*") if p.is_file())
    assert len(files) == 5 * NUM_PARTS + 3
    for file in files:
        assert (clustered / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


@pytest.fixture(scope="module")
def grown(source: Path) -> Path:
    """The source after user 4, of part 0, had another past event."""
    root = source.parent / "grown"
    shutil.copytree(source, root)
    path = behaviors_path(root, 0)
    events = pq.read_table(path)
    row = events["user"].to_pylist().index(4)
    pq.write_table(
        pa.concat_tables([events.slice(0, row), events.slice(row, 1), events.slice(row)]), path
    )
    for split in SPLITS:
        path = samples_path(root, split, 0)
        samples = pq.read_table(path)
        mine = (samples["user"].to_numpy() == 4).astype(np.int64)
        ends = pa.array(samples["history_end"].to_numpy() + mine)
        column = samples.schema.get_field_index("history_end")
        pq.write_table(samples.set_column(column, "history_end", ends), path)
    return root


def test_only_users_with_new_events_are_clustered_again(
    clustered: Path, grown: Path, tmp_path: Path
) -> None:
    scratch = cluster_histories(grown, tmp_path / "scratch", VECTORS, OPTIONS)
    found = cluster_histories(grown, tmp_path / "found", VECTORS, OPTIONS, previous=clustered)
    assert scratch == dataclasses.replace(found, num_kept_events=0)
    users = np.array(read(behaviors_path(grown, 0))["user"])
    assert 0 < found.num_events - found.num_kept_events <= (users == 4).sum()
    for part in range(NUM_PARTS):
        # cluster numbers may differ, and what they stand for may not
        files = [behaviors_path(Path(), part), *(samples_path(Path(), s, part) for s in SPLITS)]
        for file in files:
            scratched = (tmp_path / "scratch" / file).read_bytes()
            assert (tmp_path / "found" / file).read_bytes() == scratched, file


def test_clusters_are_kept_when_vectors_move(clustered: Path, grown: Path, tmp_path: Path) -> None:
    other = np.random.default_rng(6).normal(size=VECTORS.shape).astype(np.float32)
    for out, previous in (("kept", clustered), ("new", None)):
        cluster_histories(grown, tmp_path / out, other, OPTIONS, previous=previous)
    differs: dict[str, set[float]] = {"kept": set(), "new": set()}
    for out, users in differs.items():
        for part in range(NUM_PARTS):
            before, after = (
                read(behaviors_path(root, part)) for root in (clustered, tmp_path / out)
            )
            for user in set(before["user"]):
                sizes = [
                    [s for u, s in zip(log["user"], log["cluster_size"], strict=True) if u == user]
                    for log in (before, after)
                ]
                if sizes[0] != sizes[1]:
                    users.add(user)
    assert differs["kept"] == {4}
    assert len(differs["new"]) > 20


def test_another_way_of_clustering_cannot_be_gone_on_with(
    source: Path, clustered: Path, tmp_path: Path
) -> None:
    other = ClusteringOptions(field="item_id", max_size=9)
    with pytest.raises(ValueError, match=r"was clustered with .*'max_size': 8"):
        cluster_histories(source, tmp_path / "out", VECTORS, other, previous=clustered)
    with pytest.raises(ValueError, match="is no clustered data set"):
        cluster_histories(source, tmp_path / "out", VECTORS, OPTIONS, previous=source)


def test_schema_and_summary(source: Path, clustered: Path) -> None:
    fields = read_schema(clustered).behaviors
    assert fields[:-1] == read_schema(source).behaviors
    assert (fields[-1].name, fields[-1].kind) == ("cluster_size", "dense")
    summary = json.loads((clustered / CLUSTERING_FILE).read_text())
    assert summary["num_clusters"] < summary["num_events"]
    assert 0 < summary["unexplained_fraction"] < 1


def test_what_does_not_fit_is_refused(source: Path, clustered: Path, tmp_path: Path) -> None:
    for message, root, vectors, options in (
        ("is clustered already", clustered, VECTORS, OPTIONS),
        (r"vectors are \[9, 4\]; they must be \[101, D\]", source, VECTORS[:9], OPTIONS),
        ("must be finite", source, np.full_like(VECTORS, np.nan), OPTIONS),
        (
            "field 'log_dwell' must be an id field",
            source,
            VECTORS,
            ClusteringOptions(field="log_dwell"),
        ),
        (
            "group_field 'category' must be a dense field of the behaviors: log_dwell",
            source,
            VECTORS,
            ClusteringOptions(field="item_id", group_field="category", group_edges=(1.0,)),
        ),
    ):
        with pytest.raises(ValueError, match=message):
            cluster_histories(root, tmp_path / "out", vectors, options)
