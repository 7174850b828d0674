"""Writes the clustered twin of a prepared data set.

No leakage: of each user, only events earlier than the user's first sample of any split are joined,
because only they are in the past of all samples. Later events stay as they are, in clusters of one.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ranker_data.clustering import CLUSTER_SIZE
from ranker_data.clustering.events import ClusteredEvents, ClusteringOptions, cluster_events
from ranker_data.clustering.hierarchy import FloatArray
from ranker_data.clustering.reuse import (
    CLUSTERING_FILE,
    check_previous,
    fingerprints,
    known_clusters,
    write_clusters,
)
from ranker_data.columns import Column, IntArray, Ragged, plain
from ranker_data.layout import (
    SPLITS,
    STATS_FILE,
    behaviors_arrow_schema,
    behaviors_path,
    samples_arrow_schema,
    samples_path,
)
from ranker_data.preparation.output import staged_output
from ranker_data.preparation.plan import digest_of
from ranker_data.preparation.summary import write_stats
from ranker_data.preparation.writer import PartWriter
from ranker_data.reader import list_parts, read_behaviors, read_samples
from ranker_data.schema import Field, Schema, read_schema, write_schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusteringSummary:
    """What clustering did, in `clustering.json`.

    Attributes:
        num_events: events that were offered for clustering.
        num_clusters: clusters that they became.
        num_recent_events: events that stayed alone because a sample may not see them.
        num_kept_events: events whose clusters were those of a previous result.
        unexplained_fraction: squared distance to the cluster means, over that to the users' means.
    """

    num_events: int
    num_clusters: int
    num_recent_events: int
    num_kept_events: int
    unexplained_fraction: float


def cluster_histories(
    source: Path,
    out: Path,
    vectors: FloatArray,
    options: ClusteringOptions,
    *,
    num_workers: int = 1,
    previous: Path | None = None,
) -> ClusteringSummary:
    """Writes a data set with clustered histories; the same files for any number of workers.

    With a previous result, of an earlier state of the source, only users with other events to
    cluster are clustered again, as they would be without it; the others keep their clusters.

    Args:
        source: a prepared data set.
        out: folder of the clustered one; it appears when everything is done.
        vectors: [ids, D] of the table that the field reads, from a ranking model.
        options: what becomes a cluster.
        num_workers: processes that work on parts side by side.
        previous: a clustered data set with the same options and as many parts.

    Raises:
        ValueError: options, vectors, data set and previous result do not fit together.
    """
    schema = read_schema(source)
    _check(schema, vectors, options)
    vectors = np.ascontiguousarray(vectors, np.float32)
    clustered = dataclasses.replace(
        schema, behaviors=(*schema.behaviors, Field(name=CLUSTER_SIZE, kind="dense"))
    )
    if not (source / STATS_FILE).is_file():
        raise ValueError(f"{source} has no {STATS_FILE}; prepare it with scripts/prepare_data.py")
    source_stats = json.loads((source / STATS_FILE).read_text(encoding="utf-8"))
    num_parts = len(list_parts(source / "behaviors"))
    if previous is not None:
        check_previous(previous, dataclasses.asdict(options), num_parts)
    digest = digest_of(
        {
            **dataclasses.asdict(options),
            "previous": None if previous is None else _digest(previous),
            "source": source_stats["preparation"],
            "vectors": hashlib.sha256(vectors.tobytes()).hexdigest(),
        }
    )
    with staged_output(out, digest) as root:
        jobs = [(source, root, part, vectors, options, previous) for part in range(num_parts)]
        summary = _summarize(_run(jobs, num_workers))
        write_schema(clustered, root)
        record = dataclasses.asdict(summary) | {"options": dataclasses.asdict(options)}
        text = json.dumps(record, indent=1)
        (root / CLUSTERING_FILE).write_text(text + "\n", encoding="utf-8")
        write_stats(
            root,
            clustered,
            digest=digest,
            num_parts=num_parts,
            checks=[],
            wanted_splits=[s for s in SPLITS if source_stats["samples"][s]["num_rows"]],
            split_in_time=False,
        )
    return summary


def _check(schema: Schema, vectors: FloatArray, options: ClusteringOptions) -> None:
    by_name = {field.name: field for field in schema.behaviors}
    if CLUSTER_SIZE in by_name:
        raise ValueError(f"data set {schema.name!r} is clustered already; take its source")
    field = by_name.get(options.field)
    if field is None or field.kind != "id" or field.table is None:
        names = ", ".join(f.name for f in schema.behaviors if f.kind == "id")
        raise ValueError(f"field {options.field!r} must be an id field of the behaviors: {names}")
    size = schema.table(field.table).num_embeddings
    if vectors.ndim != 2 or len(vectors) != size:
        raise ValueError(
            f"vectors are {list(vectors.shape)}; they must be [{size}, D], a vector for each id of "
            f"table {field.table!r}"
        )
    if not np.isfinite(vectors).all():
        raise ValueError("vectors must be finite")
    group = options.group_field
    if group is not None and (group not in by_name or by_name[group].kind != "dense"):
        names = ", ".join(f.name for f in schema.behaviors if f.kind == "dense")
        raise ValueError(f"group_field {group!r} must be a dense field of the behaviors: {names}")


def _digest(previous: Path) -> str:
    text = (previous / STATS_FILE).read_text(encoding="utf-8")
    return str(json.loads(text)["preparation"])


@dataclasses.dataclass(frozen=True)
class _PartResult:
    """What clustering a part did.

    Attributes:
        clustered: without the columns and the clusters themselves.
        num_rows: rows of the new log.
        num_kept: events that kept their clusters.
    """

    clustered: ClusteredEvents
    num_rows: int
    num_kept: int


Job = tuple[Path, Path, int, FloatArray, ClusteringOptions, Path | None]


def _run(jobs: list[Job], num_workers: int) -> list[_PartResult]:
    """Runs all jobs and returns what they did, in the order of the parts."""
    with tqdm(total=len(jobs), desc="clustering", unit="part", disable=None) as progress:
        if num_workers == 1:
            found = []
            for job in jobs:
                found.append(_write_part(*job))
                progress.update()
            return found
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(num_workers, mp_context=context) as pool:
            futures = [pool.submit(_write_part, *job) for job in jobs]
            for future in concurrent.futures.as_completed(futures):
                future.result()
                progress.update()
            return [future.result() for future in futures]


def _write_part(
    source: Path,
    root: Path,
    part: int,
    vectors: FloatArray,
    options: ClusteringOptions,
    previous: Path | None,
) -> _PartResult:
    schema = read_schema(source)
    columns = read_behaviors(behaviors_path(source, part), schema)
    user = plain(columns["user"])
    past = _past(source, part, schema, user)
    owners = fingerprints(columns, past)
    known = None if previous is None else known_clusters(previous, part, *owners)
    clustered = cluster_events(columns, past, vectors, options, schema, known)
    write_clusters(root, part, *owners, clustered.cluster)
    wider = dataclasses.replace(
        schema, behaviors=(*schema.behaviors, Field(name=CLUSTER_SIZE, kind="dense"))
    )
    rows_now = plain(clustered.columns["user"])
    with PartWriter(root=root, schema=wider, part=part) as writer:
        arrays = {name: _to_arrow(column) for name, column in clustered.columns.items()}
        writer.write_behaviors(pa.table(arrays, schema=behaviors_arrow_schema(wider)))
        for split in SPLITS:
            names = samples_arrow_schema(schema).names
            samples = pq.read_table(samples_path(source, split, part), columns=names)
            owner = samples["user"].to_numpy()
            # every sample sees all clusters of its user and the same recent events as before
            joined = _count(user, owner) - _count(rows_now, owner)
            end = pa.array(samples["history_end"].to_numpy() - joined)
            column = samples.schema.get_field_index("history_end")
            writer.write_samples(split, samples.set_column(column, "history_end", end))
    return _PartResult(
        clustered=dataclasses.replace(clustered, columns={}, cluster=clustered.cluster[:0]),
        num_rows=len(rows_now),
        num_kept=0 if known is None else int((known >= 0).sum()),
    )


def _past(
    source: Path, part: int, schema: Schema, user: IntArray
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Returns which events are earlier than all samples of their user."""
    users, first, counts = np.unique(user, return_index=True, return_counts=True)
    visible = counts.copy()
    for split in SPLITS:
        samples = read_samples(samples_path(source, split, part), schema)
        owner, end = plain(samples["user"]), plain(samples["history_end"])
        place = np.searchsorted(users, owner)
        known = np.flatnonzero(np.isin(owner, users))
        np.minimum.at(visible, place[known], end[known])
    position = np.arange(len(user)) - np.repeat(first, counts)
    return position < np.repeat(visible, counts)


def _count(sorted_users: IntArray, wanted: IntArray) -> IntArray:
    """Returns how many rows each wanted user has."""
    low = np.searchsorted(sorted_users, wanted, side="left")
    return np.searchsorted(sorted_users, wanted, side="right") - low


def _to_arrow(column: Column) -> pa.Array:
    if isinstance(column, Ragged):
        offsets = pa.array(column.offsets.astype(np.int32))
        return pa.ListArray.from_arrays(offsets, pa.array(column.values))
    return pa.array(column)


def _summarize(results: list[_PartResult]) -> ClusteringSummary:
    parts = [result.clustered for result in results]
    num_clusters = sum(part.num_clusters for part in parts)
    spread = sum(part.squared_spread for part in parts)
    distance = sum(part.squared_distance for part in parts)
    return ClusteringSummary(
        num_events=sum(part.num_events for part in parts),
        num_clusters=num_clusters,
        num_recent_events=sum(result.num_rows for result in results) - num_clusters,
        num_kept_events=sum(result.num_kept for result in results),
        unexplained_fraction=round(distance / spread, 6) if spread else 0.0,
    )
