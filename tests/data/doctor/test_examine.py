"""Every fault that the doctor knows is planted in a sound data set, and found there by name."""

import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.doctor.examine import check_at_start, examine
from ranker_data.doctor.findings import DoctorOptions
from ranker_data.layout import behaviors_path, samples_path
from ranker_data.preparation.plan import LastSplit, Preparation, TimeSplit
from ranker_data.preparation.prepare import prepare
from ranker_data.reader import DataError, read_samples
from ranker_data.schema import Field, Label, Task, read_schema, write_schema

T0 = 1_600_000_000
NUM_ROWS = 4000
PLAN = Preparation(
    name="shop",
    time_unit="s",
    fields=(
        Field(name="user_id", kind="id", side="user", table="user"),
        Field(name="item_id", kind="id", table="item"),
        Field(name="tags", kind="ids", table="tag"),
        Field(name="price", kind="dense"),
    ),
    behaviors=(Field(name="item_id", kind="id", table="item"),),
    labels=(Label(name="click"), Label(name="buy", requires="click")),
    tasks=(Task(name="ctr", label="click"), Task(name="cvr", label="buy", condition="click")),
    split=TimeSplit(valid_fraction=0.1, test_fraction=0.1),
    num_parts=2,
)
FAST = DoctorOptions(read_rows=False)


def draw_raw() -> tuple[pa.Table, pa.Table]:
    draw = np.random.default_rng(5)
    user, item = draw.integers(0, 60, NUM_ROWS), draw.integers(0, 30, NUM_ROWS)
    price = draw.normal(size=NUM_ROWS)
    click = draw.random(NUM_ROWS) < 1 / (1 + np.exp(-price - (item % 3) + 1))
    samples: dict[str, Any] = {
        "user": user,
        "time": T0 + np.arange(NUM_ROWS),
        "user_id": user,
        "item_id": item,
        "tags": [[int(i) % 4, 9] for i in item],
        "price": price,
        "click": click.astype(np.int64),
        "buy": (click & (draw.random(NUM_ROWS) < 0.3)).astype(np.int64),
    }
    events = {
        "user": draw.integers(0, 60, NUM_ROWS),
        "time": T0 + draw.integers(-5000, 4000, NUM_ROWS),
        "item_id": draw.integers(0, 30, NUM_ROWS),
    }
    return pa.table(events), pa.table(samples)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "data"
    events, samples = draw_raw()
    prepare(PLAN, events=events, samples=samples, out=root)
    return root


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


def edit(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path, partitioning=None)), path, write_page_checksum=True)


def with_column(name: str, change: Callable[[Any], Any]) -> Callable[[pa.Table], pa.Table]:
    """A change of one column, given and returned as an array of its values."""

    def apply(table: pa.Table) -> pa.Table:
        field = table.schema.field(name)
        values = change(table[name].to_numpy().copy())
        return table.set_column(table.column_names.index(name), field, pa.array(values, field.type))

    return apply


def set_first(value: float) -> Callable[[Any], Any]:
    def change(values: Any) -> Any:
        values[0] = value
        return values

    return change


TRAIN, VALID, EVENTS = "samples/train", "samples/valid", "behaviors"


def plant(folder: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda root: edit(root / folder / "part-00001.parquet", change)


def plant_everywhere(split: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def put(root: Path) -> None:
        for part in (0, 1):
            edit(samples_path(root, split, part), change)

    return put


def cut(root: Path) -> None:
    for name in ("part-00000.parquet", "part-00001.parquet"):
        path = root / TRAIN / name
        path.write_bytes(path.read_bytes()[:-20])


def repeat_rows(table: pa.Table) -> pa.Table:
    # the number of a sample is its own, also of one that was logged twice
    doubled = pa.concat_tables([table, table])
    order = np.argsort(np.tile(np.arange(table.num_rows), 2), kind="stable")
    doubled = doubled.take(pa.array(order))
    return with_column("sample_id", lambda ids: np.arange(len(ids)))(doubled)


def leak(table: pa.Table) -> pa.Table:
    click = table["click"].to_numpy()
    return with_column("price", lambda price: click + price * 1e-3)(table)


def copy_train_rows(root: Path) -> None:
    train = pq.read_table(samples_path(root, "train", 1), partitioning=None)
    edit(samples_path(root, "test", 1), lambda _: train.slice(0, 100))


FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "truncated": (cut, "files", r"part-00000.parquet is not a readable .* bytes\)"),
    "missing part": (
        lambda root: (root / TRAIN / "part-00000.parquet").unlink(),
        "files",
        "part-00000.parquet is missing",
    ),
    "fewer parts": (
        lambda root: behaviors_path(root, 1).unlink(),
        "files",
        "different numbers of parts",
    ),
    "missing column": (
        plant(
            TRAIN,
            lambda t: t.rename_columns([n.replace("item_id", "itemid") for n in t.column_names]),
        ),
        "columns",
        "column 'item_id' is missing; did you mean 'itemid'",
    ),
    "wrong type": (
        plant(
            TRAIN,
            lambda t: t.set_column(
                t.column_names.index("item_id"), "item_id", t["item_id"].cast(pa.string())
            ),
        ),
        "columns",
        "column 'item_id' has type string, must be int64",
    ),
    "nulls": (
        plant(
            TRAIN,
            lambda t: t.set_column(
                t.column_names.index("item_id"),
                "item_id",
                pa.array([None, *t["item_id"].to_pylist()[1:]], pa.int64()),
            ),
        ),
        "nulls",
        r"column 'item_id' has 1 null\(s\)",
    ),
    "label": (plant(TRAIN, with_column("click", set_first(2.0))), "labels", "from 0 to 2"),
    "id": (
        plant(TRAIN, with_column("item_id", set_first(999))),
        "ids",
        r"ids of 'item_id' go from \d+ to 999; ids of table 'item' must be in \[0, ",
    ),
    "negative id in the history": (
        plant(EVENTS, with_column("item_id", set_first(-1))),
        "ids",
        "behaviors/part-00001.parquet: ids of 'item_id' go from -1",
    ),
    "milliseconds": (
        plant(TRAIN, with_column("time", lambda t: t * 1000)),
        "time_unit",
        "in unit 's'; it looks like 'ms'",
    ),
    "mixed units": (
        plant(TRAIN, with_column("time", lambda t: t * 1000)),
        "mixed_units",
        "times look like 's' in .*, 'ms' in .*part-00001.parquet",
    ),
    "overlap": (
        plant(VALID, with_column("time", lambda t: t - 3600)),
        "split_overlap",
        "valid begins at .* before train ends",
    ),
    "leakage": (
        plant_everywhere("train", leak),
        "label_leakage",
        r"field 'price' alone predicts label 'click' with AUC 1\.0000",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_without_reading_rows(name: str, data: Path) -> None:
    put, check, message = FAULTS[name]
    put(data)
    found = examine(data, FAST)
    assert check in {finding.check for finding in found.findings}
    texts = "\n".join(f.message for f in found.findings if f.check == check)
    assert re.search(message, texts), texts


SLOW_FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "future": (
        plant(TRAIN, with_column("history_end", lambda ends: ends + 1)),
        "history",
        "a history may only hold strictly earlier events|has .* events",
    ),
    "forgotten events": (
        plant(TRAIN, with_column("history_end", lambda ends: ends * 0)),
        "history",
        "history_end leaves out an event that is earlier",
    ),
    "order": (
        plant(TRAIN, lambda t: t.take(pa.array(range(t.num_rows)[::-1]))),
        "values",
        "rows must be sorted",
    ),
    "half a label": (
        plant(TRAIN, with_column("click", set_first(0.5))),
        "values",
        "must be 0, 1 or null",
    ),
    "duplicates": (plant(TRAIN, repeat_rows), "duplicates", r"train: .* \(3\d\.\d%\) repeat"),
    "contamination": (copy_train_rows, "contamination", "test: 100 of .* in an earlier split"),
    "one class": (
        plant_everywhere("valid", with_column("buy", lambda v: v * 0)),
        "label_rate",
        "valid: all .* values of label 'buy' are 0",
    ),
}


@pytest.mark.parametrize("name", SLOW_FAULTS)
def test_a_planted_fault_is_found_in_the_rows(name: str, data: Path) -> None:
    put, check, message = SLOW_FAULTS[name]
    put(data)
    found = examine(data, DoctorOptions())
    texts = "\n".join(f.message for f in found.findings if f.check == check)
    assert re.search(message, texts), found.findings


def test_further_columns_are_a_note(data: Path) -> None:
    edit(samples_path(data, "train", 0), lambda t: t.append_column("extra", t["price"]))
    found = examine(data, FAST)
    assert [finding.check for finding in found.findings] == ["further_columns"]
    assert "nobody reads: extra" in found.messages("note")[0]


def test_an_id_among_the_dense_fields_is_suspected(data: Path) -> None:
    def number(table: pa.Table) -> pa.Table:
        return with_column("price", lambda _: table["sample_id"].to_numpy())(table)

    plant_everywhere("train", number)(data)
    (finding,) = examine(data, FAST).findings
    assert finding.check == "id_like_dense"
    assert "dense field 'price'" in finding.message


def test_no_rows_to_train_on_is_an_error(data: Path) -> None:
    plant_everywhere("train", lambda t: t.slice(0, 0))(data)
    with pytest.raises(DataError, match="training data has 0 rows in 2 files"):
        check_at_start(data, read_schema(data), {})


def test_sound_data_raises_no_alarm(sound: Path) -> None:
    found = examine(sound, DoctorOptions())
    assert found.findings == []
    assert found.counts["train"].num_rows == found.num_rows["train"]
    assert check_at_start(sound, read_schema(sound), {}) == []
    aucs = {key: auc for key, auc in found.field_aucs.items() if key[0] == "click"}
    assert 0.6 < aucs["click", "price"] < 0.9
    # a user's past rate of random clicks knows little
    assert 0.4 < aucs["click", "user_id"] < 0.6


def test_users_split_one_by_one_do_not_overlap(tmp_path: Path) -> None:
    events, samples = draw_raw()
    plan = dataclasses.replace(PLAN, split=LastSplit(valid_samples=3, test_samples=3))
    prepare(plan, events=events, samples=samples, out=tmp_path / "data")
    fast = examine(tmp_path / "data", FAST)
    assert [finding.check for finding in fast.findings] == ["split_overlap", "split_overlap"]
    # read user by user, there is nothing wrong
    assert examine(tmp_path / "data", DoctorOptions()).findings == []


def test_training_starts_only_on_sound_data_and_lists_every_bad_file(data: Path) -> None:
    cut(data)
    (data / VALID / "part-00000.parquet").write_bytes(b"")
    (data / VALID / "part-00001.parquet").write_text("junk")
    with pytest.raises(DataError) as error:
        check_at_start(data, read_schema(data), {})
    text = str(error.value)
    assert text.startswith("4 problem(s) in the data")
    assert all(f"{split}/part-0000{part}" in text for split in (TRAIN, VALID) for part in (0, 1))


def test_severities_decide_what_stops(data: Path) -> None:
    FAULTS["leakage"][0](data)
    schema = read_schema(data)
    with pytest.raises(DataError, match=r"dataset.exclude=\[price\]"):
        check_at_start(data, schema, {})
    (warning,) = check_at_start(data, schema, {"label_leakage": "warning"})
    assert "field 'price' alone predicts" in warning
    assert check_at_start(data, schema, {"label_leakage": "off"}) == []
    # a field that the model does not see cannot leak
    assert check_at_start(data, schema.without(["price"]), {}) == []


@pytest.mark.parametrize(("policy", "expected"), [("oov", 0), ("hash", 1 + 999 % 29)])
def test_ids_out_of_range_follow_the_policy_of_their_table(
    policy: Any, expected: int, data: Path
) -> None:
    schema = read_schema(data)
    size = schema.table("item").num_embeddings
    assert size is not None
    FAULTS["id"][0](data)
    with pytest.raises(DataError, match=r"ids of table 'item' must be in \[0, "):
        read_samples(samples_path(data, "train", 1), schema)
    tables = tuple(
        dataclasses.replace(t, out_of_range=policy) if t.name == "item" else t
        for t in schema.tables
    )
    write_schema(dataclasses.replace(schema, tables=tables), data)
    columns: Any = read_samples(samples_path(data, "train", 1), read_schema(data))
    assert columns["item_id"][0] == (0 if policy == "oov" else 1 + 999 % (size - 1))
    assert columns["item_id"].max() < size
    assert examine(data, FAST).findings == []
    # and are counted
    found = examine(data, DoctorOptions())
    assert found.counts["train"].moved == {"item_id": 1}
    assert found.counts["behaviors"].moved == found.counts["test"].moved == {}
    assert found.as_dict()["counts"]["train"]["moved"] == {"item_id": 1}
    (message,) = found.messages("warning")
    assert message.startswith("train: 1 ids of 'item_id' are outside their table")


def test_a_label_that_is_not_known_yet_is_told(data: Path) -> None:
    # events go on for no longer than samples: the log ends with the last sample
    last = T0 + NUM_ROWS - 1
    for split in ("train", "valid", "test"):
        plant_everywhere(split, with_column("buy", lambda buy: buy * 0))(data)
    found = examine(data, DoctorOptions(label_windows={"buy": 500}))
    messages = [m for f, m in ((f, f.message) for f in found.findings) if f.check == "label_window"]
    # 400 test samples are all in the last 500 seconds, and 100 of the validation samples
    assert sorted(message.split(" of ")[1].split(" ")[0] for message in messages) == ["100", "400"]
    assert all(f"the log ends at {last}, less than its window of 500" in m for m in messages)
    # unknown labels are null, or their rows are left out
    for split in ("valid", "test"):
        plant_everywhere(split, nulls_after(last - 500))(data)
    found = examine(data, DoctorOptions(label_windows={"buy": 500}))
    assert not [f for f in found.findings if f.check == "label_window"]
    with pytest.raises(ValueError, match="label_windows names the unknown label 'bye'"):
        examine(data, DoctorOptions(label_windows={"bye": 500}))


def nulls_after(moment: int) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        known = table["time"].to_numpy() <= moment
        values = pa.array(table["buy"].to_numpy(), pa.float32(), mask=~known)
        return table.set_column(table.column_names.index("buy"), "buy", values)

    return change


def test_a_rate_that_falls_at_the_end_of_the_log_is_suspected(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    events, samples = (pa.concat_tables([table] * 5) for table in draw_raw())
    time, click = np.sort(samples["time"].to_numpy()), draw.random(5 * NUM_ROWS) < 0.4
    # a purchase takes up to 150 seconds, and the log is cut off
    known = time + draw.uniform(0, 150, len(time)) <= time[-1]
    for name, bought in (("sound", click), ("cut", click & known)):
        table = samples
        for column, values in (("time", time), ("click", click), ("buy", bought)):
            place = table.column_names.index(column)
            table = table.set_column(place, column, pa.array(values.astype(np.int64)))
        prepare(PLAN, events=events, samples=table, out=tmp_path / name)
        options = DoctorOptions(severities={"duplicates": "off", "contamination": "off"})
        messages = examine(tmp_path / name, options).messages("warning")
        if name == "sound":
            assert messages == []
        else:
            (message,) = messages
            assert re.match(r"label 'buy' is 1 in 1\d\.\d+% of the last", message)
            assert "+label_windows.buy=<window>" in message


def test_a_null_in_a_list_is_no_id(data: Path) -> None:
    path = samples_path(data, "train", 0)

    def put(table: pa.Table) -> pa.Table:
        lists = table["tags"].to_pylist()
        lists[3] = [1, None]
        index = table.column_names.index("tags")
        return table.set_column(index, "tags", pa.array(lists, pa.list_(pa.int64())))

    edit(path, put)
    with pytest.raises(DataError, match="column 'tags' has a null in a list"):
        read_samples(path, read_schema(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_rows": 0}, "sample_rows"),
        ({"suspect_auc": 0.999}, "not above the second"),
        ({"max_unknown_share": 2.0}, r"max_unknown_share \(2.0\) must be in"),
        ({"severities": {"leak": "off"}}, "unknown check 'leak'"),
        ({"severities": {"files": "fatal"}}, "must be error, warning, note or off"),
    ],
)
def test_options_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DoctorOptions(**change)


def test_a_file_that_is_a_folder_or_a_dangling_link_is_named(data: Path) -> None:
    path = data / TRAIN / "part-00000.parquet"
    path.unlink()
    path.mkdir()
    other = data / VALID / "part-00001.parquet"
    other.unlink()
    os.symlink(data / "nowhere", other)
    texts = "\n".join(f.message for f in examine(data, FAST).findings if f.check == "files")
    assert str(path) in texts
    assert str(other) in texts
