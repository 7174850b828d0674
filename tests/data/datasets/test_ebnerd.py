import datetime
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.ebnerd import EbnerdConverter
from ranker_data.layout import SPLITS
from ranker_data.reader import DataError
from ranker_data.schema import read_schema

T0 = datetime.datetime(2023, 5, 20, 12, 0, 0)
EPOCH = int(T0.replace(tzinfo=datetime.UTC).timestamp())

Impression = tuple[int, int, list[int], list[int], float | None, float | None]


def behaviors_table(rows: list[Impression]) -> pa.Table:
    """Rows of (user, seconds after T0, shown, clicked, next_read_time, next_scroll_percentage)."""
    columns = {
        "impression_id": pa.array(range(100, 100 + len(rows)), pa.uint32()),
        "article_id": pa.array([None] * len(rows), pa.int32()),
        "impression_time": pa.array(
            [T0 + datetime.timedelta(seconds=r[1]) for r in rows], pa.timestamp("us")
        ),
        "read_time": pa.array([5.0] * len(rows), pa.float32()),
        "scroll_percentage": pa.array([None] * len(rows), pa.float32()),
        "device_type": pa.array([1 + r[0] % 3 for r in rows], pa.int8()),
        "article_ids_inview": pa.array([r[2] for r in rows], pa.list_(pa.int32())),
        "article_ids_clicked": pa.array([r[3] for r in rows], pa.list_(pa.int32())),
        "user_id": pa.array([r[0] for r in rows], pa.uint32()),
        "is_sso_user": pa.array([r[0] == 1 for r in rows], pa.bool_()),
        "gender": pa.array([None] * len(rows), pa.int8()),
        "postcode": pa.array([None] * len(rows), pa.int8()),
        "age": pa.array([None] * len(rows), pa.int8()),
        "is_subscriber": pa.array([False] * len(rows), pa.bool_()),
        "session_id": pa.array(range(len(rows)), pa.uint32()),
        "next_read_time": pa.array([r[4] for r in rows], pa.float32()),
        "next_scroll_percentage": pa.array([r[5] for r in rows], pa.float32()),
    }
    return pa.table(columns)


def history_table(rows: dict[int, list[tuple[int, int, float, float | None]]]) -> pa.Table:
    """Lists of (seconds after T0, article, read time, scroll) by user, in the original types."""
    users = list(rows)
    times = [[T0 + datetime.timedelta(seconds=r[0]) for r in rows[u]] for u in users]
    return pa.table(
        {
            "user_id": pa.array(users, pa.uint32()),
            "impression_time_fixed": pa.array(times, pa.list_(pa.timestamp("us"))),
            "scroll_percentage_fixed": pa.array(
                [[r[3] for r in rows[u]] for u in users], pa.list_(pa.float32())
            ),
            "article_id_fixed": pa.array(
                [[r[1] for r in rows[u]] for u in users], pa.list_(pa.int32())
            ),
            "read_time_fixed": pa.array(
                [[r[2] for r in rows[u]] for u in users], pa.list_(pa.float32())
            ),
        }
    )


BEHAVIORS: list[Impression] = [
    (1, 0, [11, 12, 13], [11], 40.0, 80.0),
    (2, 100, [11, 12], [11], 10.0, None),
    (1, 200, [12, 14], [14, 12], 50.0, 50.0),
    (1, 4000, [11, 15], [15], None, 20.0),
    (2, 5000, [11, 15], [11], 31.0, 90.0),
    (1, 6000, [11, 16], [16], 1.0, 1.0),
]
HISTORY: dict[int, list[tuple[int, int, float, float | None]]] = {
    1: [(-500, 12, 20.0, 60.0), (-100, 11, 120.0, None)],
    2: [(-300, 13, 0.0, 0.0)],
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "raw" / "train"
    folder.mkdir(parents=True)
    pq.write_table(behaviors_table(BEHAVIORS), folder / "behaviors.parquet")
    pq.write_table(history_table(HISTORY), folder / "history.parquet")
    return folder.parent


def convert(source: Path, out: Path) -> None:
    EbnerdConverter(num_parts=1, valid_fraction=0.15, test_fraction=0.15).prepare(source, out)


def read(folder: Path) -> list[dict[str, Any]]:
    return pa.concat_tables(
        [pq.read_table(p, partitioning=None) for p in sorted(folder.glob("*.parquet"))]
    ).to_pylist()


def read_samples(out: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """Samples by (seconds after T0, article)."""
    articles = {row["id"]: int(row["value"]) for row in read_vocabulary(out)}
    rows = [row for split in SPLITS for row in read(out / "samples" / split)]
    return {(row["time"] - EPOCH, articles.get(row["item_id"], 0)): row for row in rows}


def read_vocabulary(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "vocabulary" / "item.parquet").to_pylist()


def test_labels(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out")
    samples = read_samples(tmp_path / "out")
    assert (
        len([row for split in SPLITS for row in read(tmp_path / "out" / "samples" / split)]) == 13
    )
    found = {key: (row["click"], row["read"], row["scroll"]) for key, row in samples.items()}
    assert found[0, 11] == (1, 1, 1)
    assert found[0, 12] == (0, 0, 0)
    # read for 10 s; the depth is not known
    assert found[100, 11] == (1, 0, None)
    # two articles were clicked: nobody knows which of them was read
    assert found[200, 14] == (1, None, None)
    assert found[4000, 15] == (1, None, 0)
    requests = {key: row["request"] for key, row in samples.items()}
    assert requests[0, 11] == requests[0, 12] == requests[0, 13] != requests[100, 11]


def test_events_count_from_the_end_of_their_reading(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out")
    articles = {row["id"]: int(row["value"]) for row in read_vocabulary(tmp_path / "out")}
    events = [row for row in read(tmp_path / "out" / "behaviors") if row["user"] == 1]
    found = [(row["time"] - EPOCH, articles.get(row["item_id"], 0)) for row in events]
    # history reads, then clicks; of two clicks nothing is known about the reading
    assert found[:3] == [(-480, 12), (20, 11), (40, 11)]
    assert sorted(found[3:5]) == [(200, 12), (200, 14)]
    assert events[1]["log_read_seconds"] == pytest.approx(math.log(121))
    assert [(row["scroll_fraction"], row["scroll_known"]) for row in events[:3]] == [
        (pytest.approx(0.6), 1),
        (0, 0),
        (pytest.approx(0.8), 1),
    ]
    samples = read_samples(tmp_path / "out")
    # at 0 the read that began at -100 is not over
    assert samples[0, 11]["history_end"] == 1
    assert samples[200, 12]["history_end"] == 3
    assert samples[4000, 11]["history_end"] == 5


def test_statistics_are_of_the_past_only(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out")
    samples = read_samples(tmp_path / "out")
    first, second, later = samples[0, 11], samples[100, 11], samples[4000, 11]
    assert first["log_clicks_1h"] == first["log_impressions_24h"] == 0
    assert first["click_rate_1h"] == pytest.approx(0.09)
    # seen in the history 100 s before
    assert first["log_age_hours"] == pytest.approx(math.log(1 + 100 / 3600))
    assert second["log_clicks_1h"] == pytest.approx(math.log(2))
    assert second["click_rate_1h"] == pytest.approx((1 + 1.8) / (1 + 20))
    # 4000 s later the two impressions are out of the last hour
    assert later["log_impressions_1h"] == 0
    assert later["log_impressions_6h"] == pytest.approx(math.log(3))
    assert later["log_times_shown"] == pytest.approx(math.log(2))
    assert later["log_num_shown"] == pytest.approx(math.log(2))


def test_the_future_does_not_change_the_past(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out")
    changed = [
        row if row[1] < 5000 else (row[0], row[1], row[2], [row[2][1]], 99.0, 99.0)
        for row in BEHAVIORS
    ]
    pq.write_table(behaviors_table(changed), source / "train" / "behaviors.parquet")
    convert(source, tmp_path / "other")
    before, after = read_samples(tmp_path / "out"), read_samples(tmp_path / "other")
    for key, row in before.items():
        if key[0] < 5000:
            assert after[key] == row


def test_folders_are_joined_and_overlapping_histories_count_once(
    source: Path, tmp_path: Path
) -> None:
    # the validation history has the clicked article of 0 s as a read, some seconds later
    pq.write_table(
        behaviors_table([(1, 9000, [17, 18], [17], 3.0, 3.0)]),
        source / "validation_behaviors.parquet",
    )
    later = {1: [*HISTORY[1], (6, 11, 40.0, 80.0), (4100, 15, 9.0, 9.0)]}
    pq.write_table(history_table(later), source / "validation_history.parquet")
    convert(source, tmp_path / "out")
    events = [row for row in read(tmp_path / "out" / "behaviors") if row["user"] == 1]
    # two reads of the shared past, two of the longer history, and the clicks after it (6000 s, 9000
    # s)
    assert len(events) == 6


def test_a_device_is_a_domain(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out")
    schema = read_schema(tmp_path / "out")
    assert schema.domain == "device"
    assert sorted(schema.domain_names) == ["mobile", "tablet", "unknown"]


def test_bad_sources_are_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a source"):
        EbnerdConverter().prepare(None, tmp_path / "out")
    with pytest.raises(ValueError, match="holds no EB-NeRD files; expected train/behaviors"):
        EbnerdConverter().prepare(tmp_path, tmp_path / "out")
    table = behaviors_table(BEHAVIORS)
    names = ["next_readtime" if n == "next_read_time" else n for n in table.column_names]
    path = source / "train" / "behaviors.parquet"
    pq.write_table(table.rename_columns(names), path)
    with pytest.raises(
        DataError, match="'next_read_time' is missing; did you mean 'next_readtime'"
    ):
        EbnerdConverter().prepare(source, tmp_path / "out")
    path.unlink()
    with pytest.raises(ValueError, match=r"behaviors\.parquet is missing"):
        EbnerdConverter().prepare(source, tmp_path / "out")
    with pytest.raises(ValueError, match=r"delay_seconds \(0\) must be at least 1"):
        EbnerdConverter(delay_seconds=0)


def test_real_data(real_data: Path, tmp_path: Path) -> None:
    schema = EbnerdConverter(num_parts=4).prepare(real_data / "ebnerd_demo_train", tmp_path / "out")
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["num_users"] == 1590
    rows = sum(split["num_rows"] for split in stats["samples"].values())
    assert rows == 278_139
    clicks = sum(split["labels"]["click"]["positive"] for split in stats["samples"].values())
    assert clicks / rows == pytest.approx(0.089, abs=0.001)
    reads = sum(split["labels"]["read"]["positive"] for split in stats["samples"].values())
    assert reads / clicks == pytest.approx(0.42, abs=0.02)
    assert stats["behaviors"]["num_rows"] > 258_318
    assert sorted(schema.domain_names) == ["desktop", "mobile", "tablet", "unknown"]
