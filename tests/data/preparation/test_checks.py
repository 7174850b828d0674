import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.preparation.duckdb_engine import DuckDBEngine
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
        ("price", 3, None, r"column 'price', row 3 is null .*give nulls.<field> a number"),
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


def test_files_that_cannot_be_read_are_left_out_if_they_are_few(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(3):
        pq.write_table(pa.table(SAMPLES), folder / f"{number}.parquet")
    (folder / "3.parquet").write_text("junk")
    (folder / "4.parquet").write_bytes((folder / "0.parquet").read_bytes()[:-9])
    events = pa.table(EVENTS)
    with pytest.raises(DataError) as error:
        prepare(PLAN, events=events, samples=folder, out=tmp_path / "out")
    assert all(f"{number}.parquet is not a readable" in str(error.value) for number in (3, 4))
    few = dataclasses.replace(PLAN, bad_file_share=0.1)
    with pytest.raises(DataError, match=r"2 of 5 files of samples cannot be read .*allows 10.0%"):
        prepare(few, events=events, samples=folder, out=tmp_path / "out")
    half = dataclasses.replace(PLAN, bad_file_share=0.5)
    prepare(half, events=events, samples=folder, out=tmp_path / "out")
    raw = json.loads((tmp_path / "out" / "stats.json").read_text())["raw"]
    assert raw["samples"] == 3 * 4
    assert raw[f"unreadable file {folder / '3.parquet'}"] == 1
    assert raw[f"unreadable file {folder / '4.parquet'}"] == 1


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other.parquet has none of the columns .*item_id"):
        prepare(
            PLAN,
            events=pa.table(EVENTS),
            samples=tmp_path / "other.parquet",
            out=tmp_path / "out",
        )


def test_columns_may_drift_only_without_loss(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    table = pa.table(SAMPLES)
    narrow = table.set_column(
        table.column_names.index("item_id"), "item_id", table["item_id"].cast(pa.int32())
    )
    pq.write_table(narrow.select(sorted(narrow.column_names)), folder / "a.parquet")
    pq.write_table(table.append_column("extra", [["x"] * 4]), folder / "b.parquet")
    events = pa.table(EVENTS)
    schema = prepare(PLAN, events=events, samples=folder, out=tmp_path / "out")
    assert schema.table("item").num_embeddings == 3
    pq.write_table(
        table.rename_columns([n.replace("price", "prize") for n in table.column_names]),
        folder / "b.parquet",
    )
    pq.write_table(
        table.set_column(
            table.column_names.index("click"), "click", table["click"].cast(pa.float64())
        ),
        folder / "c.parquet",
    )
    twins = table.append_column("Item_ID", table["item_id"])
    pq.write_table(twins, folder / "d.parquet")
    with pytest.raises(DataError) as error:
        prepare(PLAN, events=events, samples=folder, out=tmp_path / "other")
    text = str(error.value)
    assert re.search(
        r"b.parquet: column 'price', which .*a.parquet has, is missing; .*'prize'", text
    )
    assert re.search(r"c.parquet: column 'click' has type double, but int64 in .*a.parquet", text)
    assert re.search(r"d.parquet: column 'item_id' is also there as 'Item_ID'", text)
    with pytest.raises(DataError, match="'item_id' is also there as 'Item_ID'"):
        prepare(PLAN, events=events, samples=twins, out=tmp_path / "other")


def test_bytes_that_are_no_text_are_refused_and_not_printed(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 1, 3, 4, 5], np.int32))
    text = pa.Array.from_buffers(pa.string(), 4, [None, offsets, pa.py_buffer(b"a\xff\xfebc")])
    table = pa.table(SAMPLES)
    bad = table.set_column(table.column_names.index("item_id"), "item_id", text)
    pq.write_table(bad, tmp_path / "samples.parquet")
    with pytest.raises(DataError, match=r'samples.parquet": value "\\xFF\\xFE" is not valid UTF8'):
        prepare(
            PLAN,
            events=pa.table(EVENTS | {"item_id": ["7", "8", "7"]}),
            samples=tmp_path / "samples.parquet",
            out=tmp_path / "out",
        )


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
    assert "samples: column 'price' has type string, must be a number" in text
    assert "samples: column 'tags' has type int64, must be a list of ids" in text


def test_float_ids_are_refused(tmp_path: Path) -> None:
    samples = pa.table(SAMPLES | {"item_id": [7.0, 8.0, 7.0, 9.0]})
    with pytest.raises(DataError, match="'item_id' has type double, must be a id"):
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
    with pytest.raises(DataError, match=r"b\.parquet: column"):
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
    with pytest.raises(
        ValueError, match=r"memory_limit \('much'\) and spill_limit \(None\) must be like '4GB'"
    ):
        prepare(
            PLAN,
            events=pa.table(EVENTS),
            samples=pa.table(SAMPLES),
            out=tmp_path / "out",
            engine=DuckDBEngine(memory_limit="much"),
        )
