from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.preparation.plan import LastSplit, Preparation, TimeSplit
from ranker_data.preparation.prepare import prepare
from ranker_data.reader import DataError
from ranker_data.schema import Field, Label, SchemaError, Task, read_schema

T0 = 1_600_000_000
PLAN = Preparation(
    name="tiny",
    time_unit="s",
    fields=(
        Field(name="segment", kind="id", side="user", table="segment"),
        Field(name="item_id", kind="id", table="item"),
        Field(name="tags", kind="ids", table="tag"),
        Field(name="price", kind="dense"),
    ),
    behaviors=(Field(name="item_id", kind="id", table="item"),),
    labels=(Label(name="click"), Label(name="buy", requires="click")),
    tasks=(Task(name="ctr", label="click"),),
    split=TimeSplit(valid_fraction=0.0, test_fraction=0.25),
    num_parts=1,
)
EVENTS: dict[str, list[Any]] = {
    "user": [1, 1, 2],
    "time": [T0, T0 + 1, T0 + 2],
    "item_id": [7, 8, 7],
}
SAMPLES: dict[str, list[Any]] = {
    "user": [1, 1, 2, 2],
    "time": [T0 + 1, T0 + 2, T0 + 3, T0 + 4],
    "segment": ["s", "s", "t", "t"],
    "item_id": [7, 8, 7, 9],
    "tags": [["p"], [], ["q", "p"], None],
    "price": [1.0, 2.0, 3.0, 4.0],
    "click": [1, 0, None, 1],
    "buy": [1, 0, 0, 0],
}


def with_value(
    columns: dict[str, list[Any]], name: str, row: int, value: Any
) -> dict[str, list[Any]]:
    values = list(columns[name])
    values[row] = value
    return columns | {name: values}


def test_good_data_is_accepted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    schema = prepare(PLAN, events=pa.table(EVENTS), samples=pa.table(SAMPLES), out=out)
    assert read_schema(out) == schema


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        (
            "user",
            1,
            None,
            r"column 'user', row 1 is null \(1 such row\(s\)\): every row needs a user",
        ),
        ("time", 2, None, r"column 'time', row 2 is null"),
        ("time", 2, 1000 * T0, r"column 'time', row 2 is 1600000000000 .*give the right time_unit"),
        (
            "time",
            0,
            17,
            r"column 'time', row 0 is 17 .*in unit 's' a time of the years 1990 to 2100",
        ),
        ("price", 3, None, r"column 'price', row 3 is null .*fill it explicitly"),
        ("price", 3, float("nan"), r"column 'price', row 3 is nan"),
        ("price", 3, float("-inf"), r"column 'price', row 3 is -inf"),
        ("price", 3, 1e39, r"column 'price', row 3 is 1e\+39"),
        ("click", 1, 2, r"column 'click', row 1 is 2 .*must be 0, 1 or null"),
        ("buy", 1, 1, r"column 'buy', row 1 is 1, 0 .*only where 'click' is 1"),
        ("buy", 2, 1, r"column 'buy', row 2 is 1, null .*only where 'click' is 1"),
        ("segment", 1, "t", r"column 'segment' of user 1 is both s and t.*give it side 'context'"),
        ("segment", 1, None, r"column 'segment' of user 1 is both s and s \(or null\)"),
    ],
)
def test_bad_sample_values_are_named(
    name: str, row: int, value: Any, message: str, tmp_path: Path
) -> None:
    samples = pa.table(with_value(SAMPLES, name, row, value))
    with pytest.raises(DataError, match=message):
        prepare(PLAN, events=pa.table(EVENTS), samples=samples, out=tmp_path / "out")


def test_bad_event_values_are_named(tmp_path: Path) -> None:
    events = pa.table(with_value(EVENTS, "time", 1, 10**6 * T0))
    with pytest.raises(DataError, match=r"(?s)cannot prepare the events:.*column 'time', row 1"):
        prepare(PLAN, events=events, samples=pa.table(SAMPLES), out=tmp_path / "out")


def test_file_and_row_of_a_bad_value_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    samples = pa.table(with_value(SAMPLES, "click", 3, 0.5))
    pq.write_table(samples.slice(0, 2), folder / "a.parquet")
    pq.write_table(samples.slice(2), folder / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: column 'click', row 1 is 0\.5"):
        prepare(PLAN, events=pa.table(EVENTS), samples=folder, out=tmp_path / "out")


def test_a_nan_label_is_refused(tmp_path: Path) -> None:
    samples = pa.table(with_value(SAMPLES, "click", 1, float("nan")))
    # arrow reads a Python nan as null when it infers integers: write it as a float
    column = pa.array(np.array([1.0, np.nan, 0.0, 1.0]), pa.float64())
    samples = samples.set_column(samples.column_names.index("click"), "click", column)
    with pytest.raises(DataError, match="column 'click', row 1 is nan"):
        prepare(PLAN, events=pa.table(EVENTS), samples=samples, out=tmp_path / "out")


def test_missing_and_mistyped_columns_are_listed_together(tmp_path: Path) -> None:
    columns = {("itemid" if k == "item_id" else k): v for k, v in SAMPLES.items()}
    samples = pa.table(columns | {"price": ["1", "2", "3", "4"], "tags": [1, 2, 3, 4]})
    with pytest.raises(DataError) as error:
        prepare(PLAN, events=pa.table(EVENTS), samples=samples, out=tmp_path / "out")
    text = str(error.value)
    assert "samples: column 'item_id' is missing; did you mean 'itemid'?" in text
    assert "samples: column 'price' has type VARCHAR, must be a number" in text
    assert "samples: column 'tags' has type BIGINT, must be a list of ids" in text


def test_float_ids_are_refused(tmp_path: Path) -> None:
    samples = pa.table(SAMPLES | {"item_id": [7.0, 8.0, 7.0, 9.0]})
    with pytest.raises(DataError, match="'item_id' has type DOUBLE, must be a id"):
        prepare(PLAN, events=pa.table(EVENTS), samples=samples, out=tmp_path / "out")


def test_unreadable_files_are_all_listed(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    pq.write_table(pa.table(SAMPLES), folder / "a.parquet")
    (folder / "b.parquet").write_bytes(b"")
    (folder / "c.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-5])
    with pytest.raises(DataError, match=r"(?s)2 problem\(s\) in 3 files.*b\.parquet.*c\.parquet"):
        prepare(PLAN, events=pa.table(EVENTS), samples=folder, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"has no \*\.parquet files"):
        prepare(PLAN, events=tmp_path, samples=folder / "a.parquet", out=tmp_path / "out")


def test_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    pq.write_table(pa.table(SAMPLES), folder / "a.parquet")
    pq.write_table(pa.table(SAMPLES).drop_columns(["price"]), folder / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet has other columns or types than .*a\.parquet"):
        prepare(PLAN, events=pa.table(EVENTS), samples=folder, out=tmp_path / "out")


def test_no_samples_is_an_error(tmp_path: Path) -> None:
    samples = pa.table(SAMPLES).slice(0, 0)
    with pytest.raises(DataError, match="samples: there are no rows"):
        prepare(PLAN, events=pa.table(EVENTS), samples=samples, out=tmp_path / "out")


def test_contradicting_plans_are_refused() -> None:
    with pytest.raises(SchemaError, match="label 'open' is unknown"):
        Preparation(
            name="x",
            time_unit="s",
            fields=(),
            behaviors=(),
            labels=(Label(name="click"),),
            tasks=(Task(name="ctr", label="open"),),
        )
    with pytest.raises(ValueError, match="must leave something for training"):
        TimeSplit(valid_fraction=0.5, test_fraction=0.5)
    with pytest.raises(ValueError, match="must not be negative"):
        LastSplit(valid_samples=-1)


def test_engine_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"memory_limit \('much'\) must be like '4GB'"):
        prepare(
            PLAN,
            events=pa.table(EVENTS),
            samples=pa.table(SAMPLES),
            out=tmp_path / "out",
            memory_limit="much",
        )
