from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.ali_ccp import AliCcpConverter
from ranker_data.layout import SPLITS, STATS_FILE
from ranker_data.schema import read_schema


def features(*triples: tuple[str, str, float]) -> str:
    return "\x01".join(f"{field}\x02{value}\x03{weight}" for field, value, weight in triples)


def write_split(folder: Path, split: str, num_rows: int) -> None:
    common, skeleton = [], []
    for user in range(3):
        triples = [
            ("101", f"u{user}", 1.0),
            ("121", "9", 1.0),
            ("127", "3", 1.0),
            ("109_14", f"c{user}", 2.3),
            ("109_14", "c7", 0.7),
            ("127_14", "b1", 1.1),
        ]
        common.append(f"{split}{user:030d},{len(triples)},{features(*triples)}")
    for row in range(num_rows):
        click, buy = int(row % 3 == 0), int(row % 6 == 0)
        # one purchase without a click in each file
        if row == 1:
            buy = 1
        triples = [("205", f"i{row % 5}", 1.0), ("206", "c7", 1.0), ("216", "b1", 1.0)]
        triples += [("210", "n1", 1.0), ("210", "n2", 0.5)] if row % 2 else []
        triples.append(("301", "1", 1.0))
        index = f"{split}{row % 3:030d}"
        skeleton.append(f"{row + 1},{click},{buy},{index},{len(triples)},{features(*triples)}")
    (folder / f"common_features_{split}.csv").write_text("\n".join(common) + "\n")
    (folder / f"sample_skeleton_{split}.csv").write_text("\n".join(skeleton) + "\n")


def read(out: Path, split: str) -> list[dict[str, Any]]:
    paths = sorted((out / "samples" / split).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths]).to_pylist()


def values_of(out: Path, table: str) -> dict[int, str]:
    rows = pq.read_table(out / "vocabulary" / f"{table}.parquet").to_pylist()
    return {0: "?"} | {row["id"]: row["value"] for row in rows}


def convert(source: Path, out: Path) -> None:
    AliCcpConverter(min_count=1, num_parts=2, valid_fraction=0.2).prepare(source, out)


def test_samples_get_their_common_features(tmp_path: Path) -> None:
    write_split(tmp_path, "train", 31)
    write_split(tmp_path, "test", 13)
    out = tmp_path / "out"
    convert(tmp_path, out)
    rows = {split: read(out, split) for split in SPLITS}
    # the publisher's test file is the test split; one row of each file was dropped
    assert [len(rows[split]) for split in SPLITS] == [24, 6, 12]
    assert '"purchases_without_click": 2' in (out / STATS_FILE).read_text()
    users, items = values_of(out, "user"), values_of(out, "item_id")
    categories, intents = values_of(out, "category"), values_of(out, "intent")
    events = [
        row
        for path in sorted((out / "behaviors").glob("*.parquet"))
        for row in pq.read_table(path, partitioning=None).to_pylist()
    ]
    for row in rows["train"] + rows["valid"] + rows["test"]:
        user = users[row["user_id"]]
        # the history is stored once for the samples of a row of common features
        history = [event for event in events if event["user"] == row["user"]]
        assert row["history_end"] == len(history) == 3
        assert all(event["time"] < row["time"] for event in history)
        found = sorted((categories[e["category"]], round(e["log_count"], 3)) for e in history)
        assert found == sorted([("?", 1.1), (f"c{user[1]}", 2.3), ("c7", 0.7)])
        assert categories[row["category"]] == "c7"
        weighted = list(zip(row["intent"], row["intent.weight"], strict=True))
        assert [(intents[i], w) for i, w in weighted] in ([], [("n1", 1.0), ("n2", 0.5)])
        assert row["click"] >= row["buy"]
    tested = sorted((users[r["user_id"]], items[r["item_id"]], r["buy"]) for r in rows["test"])
    wanted = sorted(
        (f"u{row % 3}", f"i{row % 5}", float(row % 6 == 0)) for row in range(13) if row != 1
    )
    assert tested == wanted
    # missing fields have id 0
    assert {row["shop"] for row in rows["train"]} == {0}
    assert [field.name for field in read_schema(out).cross_behaviors] == ["log_count"]
    assert len(events) == 18


def test_training_files_alone_are_split_at_random(tmp_path: Path) -> None:
    write_split(tmp_path, "train", 31)
    convert(tmp_path, tmp_path / "out")
    assert [len(read(tmp_path / "out", split)) for split in SPLITS] == [18, 6, 6]


def test_bad_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of the original files sample_skeleton_train.csv"):
        convert(tmp_path, tmp_path / "out")
    write_split(tmp_path, "train", 31)
    (tmp_path / "common_features_test.csv").write_text("")
    with pytest.raises(ValueError, match=r"none of the original files sample_skeleton_test.csv"):
        convert(tmp_path, tmp_path / "out")
    (tmp_path / "common_features_test.csv").unlink()
    path = tmp_path / "common_features_train.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(ValueError, match="10 samples have a common_feature_index that"):
        convert(tmp_path, tmp_path / "out")
