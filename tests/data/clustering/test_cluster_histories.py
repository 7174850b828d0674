import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ranker_data.clustering.events import ClusteringOptions
from ranker_data.clustering.prepare import CLUSTERING_FILE, cluster_histories
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
    assert len(files) == 4 * NUM_PARTS + 3
    for file in files:
        assert (clustered / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


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
