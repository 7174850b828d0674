from pathlib import Path

import pyarrow as pa
import pytest

from ranker_data.layout import behaviors_arrow_schema, samples_arrow_schema
from ranker_data.preparation.summary import write_stats
from ranker_data.preparation.writer import PartWriter
from ranker_data.reader import DataError
from ranker_data.schema import Field, Label, Schema, Table

SCHEMA = Schema(
    name="tiny",
    time_unit="s",
    tables=(Table(name="item", num_embeddings=9),),
    fields=(Field(name="item_id", kind="id", table="item"),),
    behaviors=(Field(name="item_id", kind="id", table="item"),),
    labels=(Label(name="click"),),
)


def write(root: Path, history_end: int, test_time: int = 30) -> None:
    """One user with events at 10 and 20, a training sample at 20 and a test sample."""
    with PartWriter(root=root, schema=SCHEMA, part=0) as writer:
        events = {"user": [1, 1], "time": [10, 20], "item_id": [3, 4]}
        writer.write_behaviors(pa.table(events, schema=behaviors_arrow_schema(SCHEMA)))
        for split, time, end in (
            ("train", 20, history_end),
            ("test", test_time, 1 if test_time <= 20 else 2),
        ):
            samples = {
                "sample_id": [time],
                "user": [1],
                "time": [time],
                "request": [0],
                "history_end": [end],
                "item_id": [3],
                "click": [1.0],
                "weight": [1.0],
            }
            table = pa.table(samples, schema=samples_arrow_schema(SCHEMA))
            writer.write_samples(split, table)


def check(root: Path, *wanted_splits: str) -> None:
    write_stats(
        root,
        SCHEMA,
        digest="d",
        num_parts=1,
        checks=[],
        wanted_splits=wanted_splits,
        split_in_time=True,
    )


def test_good_files_pass(tmp_path: Path) -> None:
    write(tmp_path, history_end=1)
    check(tmp_path, "train", "test")
    assert '"checks_passed"' in (tmp_path / "stats.json").read_text()


@pytest.mark.parametrize(
    ("history_end", "message"),
    [(2, "may only hold strictly earlier events"), (0, "history_end leaves out an event")],
)
def test_wrong_histories_are_found(history_end: int, message: str, tmp_path: Path) -> None:
    write(tmp_path, history_end=history_end)
    with pytest.raises(DataError, match=message):
        check(tmp_path, "train")


def test_overlapping_and_missing_splits_are_found(tmp_path: Path) -> None:
    write(tmp_path, history_end=1)
    with pytest.raises(DataError, match="the valid split has no rows"):
        check(tmp_path, "train", "valid", "test")
    write(tmp_path, history_end=1, test_time=21)
    check(tmp_path, "train", "test")
    write(tmp_path / "other", history_end=1, test_time=20)
    with pytest.raises(DataError, match=r"last train sample \(time 20\) is not earlier than"):
        check(tmp_path / "other", "train", "test")
