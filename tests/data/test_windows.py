"""What a sample sees, against a definition that looks at every event."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker_data.layout import (
    SPLITS,
    behaviors_arrow_schema,
    behaviors_path,
    samples_arrow_schema,
    samples_path,
)
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.schema import Field, Label, Schema, Table, Task

SCHEMA = Schema(
    name="windows",
    time_unit="s",
    tables=(Table(name="item", num_embeddings=10_000), Table(name="tag", num_embeddings=10)),
    fields=(
        Field(name="item", kind="id", table="item"),
        Field(name="tags", kind="ids", table="tag"),
    ),
    behaviors=(
        Field(name="item", kind="id", table="item"),
        Field(name="tags", kind="ids", table="tag"),
        Field(name="dwell", kind="dense"),
    ),
    labels=(Label(name="click"),),
    tasks=(Task(name="ctr", label="click"),),
)

# few moments, so that events and samples of one time are common
moments = st.lists(st.integers(0, 6), max_size=12)
histories = st.lists(st.tuples(moments, moments), min_size=1, max_size=8)


def tags_of(number: int) -> list[int]:
    return list(range(number % 4))


def write(root: Path, users: list[tuple[list[int], list[int]]], num_parts: int) -> None:
    """Writes users with the times of their events and samples; an event's item is its number."""
    for part in range(num_parts):
        events: dict[str, list[object]] = {n: [] for n in behaviors_arrow_schema(SCHEMA).names}
        samples: dict[str, list[object]] = {n: [] for n in samples_arrow_schema(SCHEMA).names}
        for user in range(part, len(users), num_parts):
            event_times, sample_times = (sorted(times) for times in users[user])
            for i, time in enumerate(event_times):
                item = 100 * user + i
                for name, value in zip(
                    events, (user, time, item, tags_of(item), float(i)), strict=True
                ):
                    events[name].append(value)
            for i, time in enumerate(sample_times):
                end = sum(event < time for event in event_times)
                sample_id = 100 * user + i
                row = (sample_id, user, time, 0, end, 0, tags_of(sample_id), 1.0, 1.0)
                for name, value in zip(samples, row, strict=True):
                    samples[name].append(value)
        table = pa.table(events, schema=behaviors_arrow_schema(SCHEMA))
        behaviors_path(root, part).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, behaviors_path(root, part))
        for split in SPLITS:
            table = pa.table(samples, schema=samples_arrow_schema(SCHEMA))
            samples_path(root, split, part).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, samples_path(root, split, part))


@settings(deadline=None, max_examples=30)
@given(
    users=histories.filter(lambda users: any(samples for _, samples in users)),
    max_length=st.integers(1, 8),
    batch_size=st.integers(1, 9),
    num_parts=st.integers(1, 4),
    cached=st.booleans(),
)
def test_a_sample_sees_its_latest_strictly_earlier_events_and_nothing_else(
    users: list[tuple[list[int], list[int]]],
    max_length: int,
    batch_size: int,
    num_parts: int,
    cached: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        write(root, users, num_parts)
        loader = RankingLoader(
            root=root,
            schema=SCHEMA,
            split="test",
            options=LoaderOptions(
                batch_size=batch_size,
                max_length=max_length,
                num_streams=1,
                cache_dir=str(Path(folder) / "cache") if cached else None,
            ),
            seed=0,
            shuffle=False,
            rank=0,
            world_size=1,
        )
        seen: list[int] = []
        for batch in loader.batches():
            items = batch.ids["behavior.item"].values().tolist()
            bags = batch.bag_lengths["behavior.tags"]
            tags = batch.ids["behavior.tags"].values().split(bags.tolist())
            for c, (begin, end) in enumerate(batch.windows.tolist()):
                user = int(batch.user[c])
                seen.append(int(batch.sample_id[c]))
                # the definition: of all events those before the sample, the latest of them
                events = sorted(users[user][0])
                visible = [i for i, time in enumerate(events) if time < int(batch.time[c])]
                visible = visible[-max_length:]
                assert items[begin:end] == [100 * user + i for i in visible]
                assert batch.behavior_time[begin:end].tolist() == [events[i] for i in visible]
                assert batch.behavior_dense[begin:end, 0].tolist() == visible
                assert [t.tolist() for t in tags[begin:end]] == [
                    tags_of(100 * user + i) for i in visible
                ]
            # every event that is in the batch is seen by some sample
            covered = np.zeros(batch.num_behaviors, bool)
            for begin, end in batch.windows.tolist():
                covered[begin:end] = True
            assert covered.all()
        expected = [100 * u + i for u, (_, times) in enumerate(users) for i in range(len(times))]
        assert sorted(seen) == expected
