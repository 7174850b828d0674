"""The clusters of an event log: which events join, and the row that stands for them."""

import dataclasses

import numpy as np

from ranker_data.clustering import CLUSTER_SIZE
from ranker_data.clustering.hierarchy import FloatArray, cluster_groups, sums_by
from ranker_data.columns import Column, IntArray, Ragged, plain, take
from ranker_data.schema import Schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusteringOptions:
    """What becomes a cluster.

    Attributes:
        field: behaviour id field whose vectors say which events are alike.
        max_size: largest cluster (gamma in the paper).
        group_field: dense behaviour field; only events of the same band of it are joined (the
            paper: the share of a video that was played). None makes one band.
        group_edges: borders between the bands, ascending.
    """

    field: str
    max_size: int = 20
    group_field: str | None = None
    group_edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.max_size < 1:
            raise ValueError(f"max_size is {self.max_size}; must be at least 1")
        if bool(self.group_edges) != (self.group_field is not None):
            raise ValueError("group_field and group_edges belong together; give both or neither")
        if list(self.group_edges) != sorted(set(self.group_edges)):
            raise ValueError(f"group_edges {list(self.group_edges)} must ascend")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusteredEvents:
    """An event log of clusters.

    Attributes:
        columns: of the behaviours, with the size of the cluster, by user and time.
        cluster: [num_events] number of the cluster of each event that was offered.
        num_events: events that were offered for clustering.
        num_clusters: clusters that they became.
        squared_distance: of these events to the means of their clusters, summed.
        squared_spread: of these events to the means of their users, summed.
    """

    columns: dict[str, Column]
    cluster: IntArray
    num_events: int
    num_clusters: int
    squared_distance: float
    squared_spread: float


def cluster_events(
    columns: dict[str, Column],
    past: np.ndarray[tuple[int], np.dtype[np.bool_]],
    vectors: FloatArray,
    options: ClusteringOptions,
    schema: Schema,
    known: IntArray | None = None,
) -> ClusteredEvents:
    """Joins the past events of each user; the other events stay as clusters of one.

    Args:
        columns: an event log by user and time.
        past: [n] whether an event may be joined; a user's past comes before the rest.
        vectors: [ids, D] of the field that the options name.
        options: what becomes a cluster.
        schema: of the log.
        known: [past events] clusters that are known, -1 for none; a user has all or none.
    """
    user = plain(columns["user"])
    rows = np.flatnonzero(past)
    points = vectors[plain(columns[options.field])[rows]]
    owner = np.unique(user[rows], return_inverse=True)[1]
    group = owner
    if options.group_field is not None:
        edges = np.asarray(options.group_edges)
        band = np.searchsorted(edges, plain(columns[options.group_field])[rows], side="right")
        group = owner * (len(edges) + 1) + band
    found = _cluster(points, group, known, options.max_size)
    num_clusters = int(found.max()) + 1 if len(found) else 0
    # events that stay alone follow as clusters of their own
    cluster = np.empty(len(user), np.int64)
    cluster[rows] = found
    cluster[~past] = num_clusters + np.arange(len(user) - len(rows))
    nearest, distance = _nearest_members(points, found, num_clusters)
    representative = np.concatenate([rows[nearest], np.flatnonzero(~past)])
    return ClusteredEvents(
        columns=_merge(columns, cluster, representative, schema),
        cluster=found,
        num_events=len(rows),
        num_clusters=num_clusters,
        squared_distance=float(distance.sum()),
        squared_spread=float(
            _nearest_members(points, owner, int(owner.max(initial=-1)) + 1)[1].sum()
        ),
    )


def _cluster(
    points: FloatArray, group: IntArray, known: IntArray | None, max_size: int
) -> IntArray:
    """Clusters the points whose cluster is not known; numbers are from 0 without gaps."""
    new = np.full(len(points), True) if known is None else known < 0
    found = np.empty(len(points), np.int64)
    found[new] = cluster_groups(points[new], group[new], max_size=max_size)
    if known is not None:
        number = int(found[new].max(initial=-1)) + 1
        found[~new] = number + np.unique(known[~new], return_inverse=True)[1]
    return found


def _nearest_members(
    points: FloatArray, cluster: IntArray, num_clusters: int
) -> tuple[IntArray, FloatArray]:
    """Returns the point nearest to each mean, the first of equals, and all squared distances."""
    counts = np.bincount(cluster, minlength=num_clusters)
    means = sums_by(points, cluster, num_clusters) / counts[:, None]
    difference = points - means.astype(np.float32)[cluster]
    distance = np.einsum("pd,pd->p", difference, difference)
    order = np.lexsort((np.arange(len(cluster)), distance, cluster))
    return order[np.cumsum(counts) - counts], distance


def _merge(
    columns: dict[str, Column], cluster: IntArray, representative: IntArray, schema: Schema
) -> dict[str, Column]:
    """Makes one row of each cluster, by user and time.

    Ids are those of the representative, numbers are means, and the time is that of the latest
    event: whoever sees the row may see every event in it.
    """
    counts = np.bincount(cluster)
    time = np.zeros(len(counts), np.int64)
    np.maximum.at(time, cluster, plain(columns["time"]))
    merged: dict[str, Column] = {
        "user": plain(columns["user"])[representative],
        "time": time,
    }
    for field in schema.behaviors:
        column = columns[field.name]
        if isinstance(column, Ragged) or field.kind != "dense":
            merged[field.name] = take(column, representative)
        else:
            merged[field.name] = (np.bincount(cluster, column) / counts).astype(np.float32)
    merged[CLUSTER_SIZE] = counts.astype(np.float32)
    order = np.lexsort((representative, time, plain(merged["user"])))
    return {name: take(column, order) for name, column in merged.items()}
