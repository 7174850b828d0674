import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.custom import CustomConverter
from ranker_data.layout import SPLITS

T0 = 1_700_000_000
FIELDS = """
name: shop
fields:
  - {name: user_id, kind: id, side: user, table: user}
  - {name: item_id, kind: id, table: item}
  - {name: tags, kind: ids, table: tag}
  - {name: price, kind: dense}
behaviors:
  - {name: item_id, kind: id, table: item}
  - {name: dwell, kind: dense}
labels:
  - {name: click}
tasks:
  - {name: ctr, label: click}
split: {valid_fraction: 0.25, test_fraction: 0.25}
"""
COLUMNS = "{user: uid, time: ts, user_id: uid, item_id: item, click: clk}"


def read(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths]).to_pylist()


def samples_of(out: Path) -> list[dict[str, Any]]:
    rows = [row for split in SPLITS for row in read(out / "samples" / split)]
    return sorted(rows, key=lambda row: row["sample_id"])


def values_of(out: Path, table: str) -> dict[int, str]:
    rows = pq.read_table(out / "vocabulary" / f"{table}.parquet").to_pylist()
    return {0: "?"} | {row["id"]: row["value"] for row in rows}


def convert(source: Path, text: str) -> Path:
    (source / "dataset.yaml").write_text(text, encoding="utf-8")
    CustomConverter(num_parts=2).prepare(source, source / "out")
    return source / "out"


def test_events_and_samples_from_csv(tmp_path: Path) -> None:
    (tmp_path / "shown.csv").write_text(
        "uid,ts,item,tags,price,clk\n"
        f"a,{T0 + 10},x,red|big,1.5,1\n"
        f"a,{T0 + 20},y,,2.5,0\n"
        f"a,{T0 + 30},x,red|big,1.5,\n"
        "b,2023-11-14 22:14:00,y,,2.5,0\n"
    )
    (tmp_path / "log.csv").write_text(
        f"uid,ts,item,dwell\na,{T0 + 5},x,3\na,{T0 + 20},y,4\nb,{T0 + 1},x,5\n"
    )
    text = f"samples: {{files: shown.csv, columns: {COLUMNS}}}\n"
    text += "events: {files: log.csv, columns: {user: uid, time: ts, item_id: item}}\n"
    out = convert(tmp_path, FIELDS + text)
    rows, tags = samples_of(out), values_of(out, "tag")
    assert [row["time"] - T0 for row in rows] == [10, 20, 30, 40]
    # the event at the sample's own time is not visible
    assert [row["history_end"] for row in rows] == [1, 1, 2, 1]
    assert [row["click"] for row in rows] == [1.0, 0.0, None, 0.0]
    assert [[tags[tag] for tag in row["tags"]] for row in rows[:2]] == [["red", "big"], []]
    assert len(read(out / "behaviors")) == 3


def inlined_table(histories: list[tuple[str, int, list[str], list[int]]]) -> pa.Table:
    return pa.table(
        {
            "uid": [row[0] for row in histories],
            "ts": [T0 + row[1] for row in histories],
            "item": ["x"] * len(histories),
            "tags": pa.array([[]] * len(histories), pa.list_(pa.string())),
            "price": [1.0] * len(histories),
            "clk": [0] * len(histories),
            "items": [row[2] for row in histories],
            "dwells": pa.array([[2.0] * len(row[2]) for row in histories], pa.list_(pa.float64())),
            "times": [[T0 + second for second in row[3]] for row in histories],
        }
    )


# windows of the latest two events; x was read twice at second 1
HISTORIES = [
    ("a", 5, ["x", "x"], [1, 1]),
    ("a", 8, ["x", "y"], [1, 7]),
    ("b", 9, [], []),
    ("b", 12, ["z"], [3]),
]
INLINED = f"samples: {{files: '*.parquet', columns: {COLUMNS}}}\n"
TIMED = "history: {time: times, columns: {item_id: items, dwell: dwells}}\n"
UNTIMED = "history: {columns: {item_id: items, dwell: dwells}}\n"


def test_inlined_histories_with_times_are_stored_once(tmp_path: Path) -> None:
    pq.write_table(inlined_table(HISTORIES), tmp_path / "data.parquet")
    out = convert(tmp_path, FIELDS + INLINED + TIMED)
    items = values_of(out, "item")
    events = sorted(
        (e["user"], e["time"] - T0, items[e["item_id"]]) for e in read(out / "behaviors")
    )
    assert [(user, second) for user, second, _ in events] == [(1, 1), (1, 1), (1, 7), (2, 3)]
    assert [item for _, _, item in events][:2] == ["x", "x"]
    assert [row["history_end"] for row in samples_of(out)] == [2, 3, 1, 1]


def test_inlined_histories_without_times_grow(tmp_path: Path) -> None:
    grown: list[tuple[str, int, list[str], list[int]]] = [
        ("a", 5, ["x"], []),
        ("a", 8, ["x", "y", "z"], []),
        ("a", 9, ["x", "y", "z"], []),
        ("b", 3, [], []),
    ]
    pq.write_table(inlined_table(grown), tmp_path / "data.parquet")
    out = convert(tmp_path, FIELDS + INLINED + UNTIMED)
    assert [row["history_end"] for row in samples_of(out)] == [1, 3, 3, 0]
    assert [e["time"] - T0 for e in read(out / "behaviors")] == [4, 7, 7]
    assert json.loads((out / "stats.json").read_text())["raw"]["events"] == 3


@pytest.mark.parametrize(
    ("histories", "history", "message"),
    [
        ([("a", 5, ["x", "y"], [1])], TIMED, "different lengths"),
        ([("a", 5, ["x"], [5])], TIMED, "user a at time 1700000005: history shows an event that"),
        ([("a", 5, ["x"], []), ("a", 6, ["y"], [])], UNTIMED, "not the beginning of the user's"),
        ([("a", 5, ["x", "y"], []), ("a", 6, ["x"], [])], UNTIMED, "has a longer list"),
    ],
)
def test_bad_inlined_histories_are_refused(
    histories: list[tuple[str, int, list[str], list[int]]],
    history: str,
    message: str,
    tmp_path: Path,
) -> None:
    pq.write_table(inlined_table(histories), tmp_path / "data.parquet")
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, FIELDS + INLINED + history)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: shop", "nam: shop", r"unknown key 'nam'; did you mean 'name'"),
        ("kind: dense", "kind: number", r"fields\[3\]: kind is 'number', must be one of"),
        ("{item_id: items,", "{item: items,", r"history.columns names \['dwell', 'item'\]"),
        ("columns: {user: uid", "columns: {usr: uid, user: uid", "'usr', which is no column"),
        ("item_id: item,", "item_id: itms,", "'itms' is missing; did you mean 'items'"),
        ("'*.parquet'", "'*.csv'", r"samples.files: nothing in .* matches '\*.csv'"),
    ],
)
def test_bad_descriptions_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    pq.write_table(inlined_table(HISTORIES), tmp_path / "data.parquet")
    text = FIELDS + INLINED + TIMED
    assert old in text
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, text.replace(old, new, 1))


def test_missing_source_and_description(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="source is missing"):
        CustomConverter().prepare(None, tmp_path / "out")
    with pytest.raises(ValueError, match=r"dataset.yaml does not exist"):
        CustomConverter().prepare(tmp_path, tmp_path / "out")


def test_parquet_files_are_prepared_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples: dict[str, list[Any]] = {
        "uid": ["a", "a", "a", "b"],
        "ts": [T0 + 10, T0 + 20, T0 + 30, T0 + 40],
        "item": ["x", "y", "x", "y"],
        "tags": [["red", "big"], ["red"], ["big"], ["red", "big"]],
        "tags.weight": [[1.0, 0.5], [2.0], [0.25], [1.0, 1.0]],
        "price": [1.5, 2.5, 1.5, 2.5],
        "clk": [1, 0, 1, 0],
    }
    log: dict[str, list[Any]] = {
        "uid": ["a", "b"],
        "ts": [T0 + 5, T0 + 1],
        "item": ["x", "y"],
        "dwell": [3.0, 5.0],
    }
    text = FIELDS.replace("kind: ids, table: tag", "kind: ids, table: tag, weighted: true")
    events = "columns: {user: uid, time: ts, item_id: item}"
    outs = {}
    for kind in ("csv", "parquet"):
        folder = tmp_path / kind
        folder.mkdir()
        for name, columns in (("shown", samples), ("log", log)):
            if kind == "parquet":
                pq.write_table(pa.table(columns), folder / f"{name}.parquet")
                continue
            texts = {
                key: ["|".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]
                for key, values in columns.items()
            }
            lines = [",".join(texts), *map(",".join, zip(*texts.values(), strict=True))]
            (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
        if kind == "parquet":
            # no copy of the files is made, so that any engine may read them
            monkeypatch.delattr("ranker_data.datasets.custom.convert")
        files = f"samples: {{files: shown.{kind}, columns: {COLUMNS}}}\n"
        files += f"events: {{files: log.{kind}, {events}}}\n"
        outs[kind] = convert(folder, text + files)
    assert samples_of(outs["csv"]) == samples_of(outs["parquet"])
    assert read(outs["csv"] / "behaviors") == read(outs["parquet"] / "behaviors")
    assert samples_of(outs["csv"])[0]["tags.weight"] == [1.0, 0.5]


def test_a_wrong_name_among_parquet_columns_is_named(tmp_path: Path) -> None:
    table = pa.table({"uid": ["a"], "ts": [T0], "item": ["x"], "price": [1.0], "clk": [1]})
    pq.write_table(table.append_column("tags", [[["red"]]]), tmp_path / "shown.parquet")
    columns = COLUMNS.replace("click: clk", "click: clk, klick: clk")
    text = f"samples: {{files: shown.parquet, columns: {columns}}}\n"
    without = FIELDS.replace(
        "behaviors:\n  - {name: item_id, kind: id, table: item}\n  - {name: dwell, kind: dense}\n",
        "",
    )
    with pytest.raises(ValueError, match=r"samples\.columns names 'klick', which is no column"):
        convert(tmp_path, without + text)
