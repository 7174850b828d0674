import numpy as np
import pytest

from ranker_data.clustering.events import ClusteringOptions, cluster_events
from ranker_data.columns import Column, plain
from ranker_data.schema import Field, Schema, Table

SCHEMA = Schema(
    name="events",
    time_unit="s",
    tables=(Table(name="item", num_embeddings=10), Table(name="event", num_embeddings=4)),
    fields=(Field(name="item_id", kind="id", table="item"),),
    behaviors=(
        Field(name="item_id", kind="id", table="item"),
        Field(name="event", kind="id", table="event"),
        Field(name="dwell", kind="dense"),
    ),
)
# items 1 and 2 are alike, 3 and 4 are, 5 is between 3 and 4
POINTS = [[0, 0], [0, 0], [0.1, 0], [9, 9], [9, 9.4], [9, 9.2]]
VECTORS = np.array(POINTS + 4 * [[0, 0]], np.float32)


def log(rows: list[tuple[int, int, int, int, float]]) -> dict[str, Column]:
    names = ("user", "time", "item_id", "event", "dwell")
    kinds = (np.int64, np.int64, np.int64, np.int64, np.float32)
    values = zip(*rows, strict=True)
    return {n: np.array(v, k) for n, k, v in zip(names, kinds, values, strict=True)}


EVENTS = [
    (1, 10, 1, 1, 2.0),
    (1, 11, 3, 2, 3.0),
    (1, 12, 2, 3, 4.0),
    (1, 13, 4, 1, 5.0),
    (1, 14, 5, 3, 10.0),
    (1, 20, 1, 1, 7.0),
    (2, 10, 1, 2, 1.0),
]
PAST = np.array([True] * 5 + [False, True])


def as_rows(columns: dict[str, Column]) -> list[tuple[float, ...]]:
    names = ("user", "time", "item_id", "event", "dwell", "cluster_size")
    return list(zip(*(plain(columns[name]).tolist() for name in names), strict=True))


def test_a_cluster_has_the_mean_numbers_the_nearest_ids_and_the_latest_time() -> None:
    options = ClusteringOptions(field="item_id", max_size=3)
    found = cluster_events(log(EVENTS), PAST, VECTORS, options, SCHEMA)
    assert as_rows(found.columns) == [
        # items 1 and 2 are equally near to their mean: the first; then 3, 4 and 5, of which 5 is
        (1, 12, 1, 1, 3.0, 2.0),
        (1, 14, 5, 3, 6.0, 3.0),
        (1, 20, 1, 1, 7.0, 1.0),
        (2, 10, 1, 2, 1.0, 1.0),
    ]
    assert (found.num_events, found.num_clusters) == (6, 3)
    # 2 * 0.05^2 + 2 * 0.2^2
    assert found.squared_distance == pytest.approx(0.085, rel=1e-3)


def test_events_of_different_bands_stay_apart() -> None:
    options = ClusteringOptions(
        field="item_id", max_size=3, group_field="dwell", group_edges=(4.0, 9.0)
    )
    found = cluster_events(log(EVENTS), PAST, VECTORS, options, SCHEMA)
    assert [(row[1], *row[4:]) for row in as_rows(found.columns)] == [
        (11, 2.5, 2.0),
        (13, 4.5, 2.0),
        (14, 10.0, 1.0),
        (20, 7.0, 1.0),
        (10, 1.0, 1.0),
    ]


def test_clusters_of_one_leave_the_log_as_it_is() -> None:
    options = ClusteringOptions(field="item_id", max_size=1)
    found = cluster_events(log(EVENTS), PAST, VECTORS, options, SCHEMA)
    assert as_rows(found.columns) == [(*row, 1.0) for row in EVENTS]
    assert found.squared_distance == 0


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="max_size is 0"):
        ClusteringOptions(field="item_id", max_size=0)
    with pytest.raises(ValueError, match="give both or neither"):
        ClusteringOptions(field="item_id", group_field="dwell")
    with pytest.raises(ValueError, match=r"\[3.0, 1.0\] must ascend"):
        ClusteringOptions(field="item_id", group_field="dwell", group_edges=(3.0, 1.0))
