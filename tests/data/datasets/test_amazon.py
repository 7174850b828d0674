import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.amazon import AmazonConverter
from ranker_data.layout import SPLITS

T0 = 1_400_000_000
ITEMS = [f"B00000000{number}" for number in range(9)]
# user, item, day; u1 has two reviews of its last day but one
REVIEWS = [("A0USERNUMBER1", ITEMS[item], day) for item, day in ((0, 0), (1, 1), (2, 2), (3, 2))]
REVIEWS += [("A0USERNUMBER1", ITEMS[4], 3), ("A0USERNUMBER9", ITEMS[8], 3)]
REVIEWS += [("A0USERNUMBER2", ITEMS[item], day) for day, item in enumerate((0, 5, 6, 7, 8))]


def write_json_of_2014(folder: Path) -> None:
    lines = [
        {"reviewerID": u, "asin": i, "overall": 5.0, "unixReviewTime": T0 + 86400 * day}
        for u, i, day in REVIEWS
    ]
    text = "\n".join(
        json.dumps({**line, "reviewText": "good", "helpful": [0, 0]}) for line in lines
    )
    (folder / "reviews_Electronics_5.json").write_text(text + "\n")
    # descriptions of 2014 are Python literals
    items = [{"asin": item, "title": "it's", "categories": [["All", f"c{i % 2}"]]}
             for i, item in enumerate(ITEMS)]  # fmt: skip
    with gzip.open(folder / "meta_Electronics.json.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(str(item) for item in items) + "\n")


def write_json_of_2023(folder: Path) -> None:
    lines = [
        {"rating": 5.0, "title": "t", "asin": "X", "parent_asin": i, "user_id": u,
         "timestamp": (T0 + 86400 * day) * 1000} for u, i, day in REVIEWS
    ]  # fmt: skip
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "Electronics.jsonl").write_text(text + "\n")
    items = [{"parent_asin": item, "main_category": "E", "categories": ["All", f"c{i % 2}"]}
             for i, item in enumerate(ITEMS)]  # fmt: skip
    text = "\n".join(json.dumps(item) for item in items)
    (folder / "meta_Electronics.jsonl").write_text(text + "\n")


def write_csv_of_2023(folder: Path) -> None:
    lines = [f"{u},{i},5.0,{(T0 + 86400 * day) * 1000}" for u, i, day in REVIEWS]
    header = "user_id,parent_asin,rating,timestamp"
    (folder / "Electronics.csv").write_text("\n".join([header, *lines]) + "\n")


def write_csv_of_2014(folder: Path) -> None:
    lines = [f"{u},{i},5.0,{T0 + 86400 * day}" for u, i, day in REVIEWS]
    (folder / "ratings_Electronics.csv").write_text("\n".join(lines) + "\n")


def write_csv_of_2018(folder: Path) -> None:
    lines = [f"{i},{u},5.0,{T0 + 86400 * day}" for u, i, day in REVIEWS]
    (folder / "Electronics.csv").write_text("\n".join(lines) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths]).to_pylist()


def values_of(out: Path, table: str) -> dict[int, str]:
    rows = pq.read_table(out / "vocabulary" / f"{table}.parquet").to_pylist()
    return {0: "?"} | {row["id"]: row["value"] for row in rows}


def convert(source: Path, **options: Any) -> Path:
    AmazonConverter(**({"num_parts": 1, "valid_reviews": 0} | options)).prepare(
        source, source / "out"
    )
    return source / "out"


@pytest.mark.parametrize(
    "write",
    [
        write_json_of_2014,
        write_json_of_2023,
        write_csv_of_2014,
        write_csv_of_2018,
        write_csv_of_2023,
    ],
)
def test_all_formats_give_the_same_samples(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    out = convert(tmp_path)
    rows = [row | {"split": split} for split in SPLITS for row in read(out / "samples" / split)]
    rows.sort(key=lambda row: row["sample_id"])
    bought = [row for row in rows if row["review"] == 1]
    days = [(row["user"], (row["time"] - T0) // 86400, row["history_end"]) for row in bought]
    # a first review has no history; reviews of one day do not see each other
    assert days == [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 3, 4), *[(2, d, d) for d in range(1, 5)]]
    assert [(row["user"], row["split"]) for row in bought if row["split"] != "train"] == [
        (1, "test"),
        (2, "test"),
    ]
    raw = json.loads((out / "stats.json").read_text())["raw"]
    assert raw["reviews_of_users_with_few"] == 1
    assert raw["reviews_without_an_earlier_one"] == 2
    # half of the few items are refused, so some draws are in vain
    assert len(rows) == 16 - raw["negatives_that_could_not_be_drawn"] >= 14
    if write in (write_json_of_2014, write_json_of_2023):
        items, categories = values_of(out, "item"), values_of(out, "category")
        for row in rows:
            if row["item_id"] and row["category"]:
                assert categories[row["category"]] == f"c{int(items[row['item_id']][-1]) % 2}"
        assert len(categories) == 3


def test_negatives_were_never_reviewed_and_are_seeded(tmp_path: Path) -> None:
    # every user has reviewed all but three items
    lines = [f"A0USERNUMBER{u},{ITEMS[i]},5.0,{T0 + 86400 * i}" for u in (1, 2) for i in range(6)]
    lines += [f"A0USERNUMBER3,{ITEMS[i]},5.0,{T0 + 86400 * i}" for i in range(3, 9)]
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    drawn = {}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        out = tmp_path / name
        AmazonConverter(num_parts=1, seed=seed, valid_reviews=0).prepare(
            tmp_path / "ratings.csv", out
        )
        items = values_of(out, "item")
        rows = [row for split in SPLITS for row in read(out / "samples" / split)]
        drawn[name] = [
            (row["user"], row["time"], items[row["item_id"]]) for row in rows if row["review"] == 0
        ]
        for user, _, item in drawn[name]:
            reviewed = ITEMS[3:9] if user == 3 else ITEMS[:6]
            assert item not in reviewed
        raw = json.loads((out / "stats.json").read_text())["raw"]
        assert len(drawn[name]) == 15 - raw["negatives_that_could_not_be_drawn"] >= 12
    assert drawn["one"] == drawn["same"] != drawn["other"]


def test_bad_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no reviews"):
        convert(tmp_path)
    write_json_of_2014(tmp_path)
    (tmp_path / "reviews_Books_5.json").write_text("{}\n")
    with pytest.raises(ValueError, match="has reviews of several categories"):
        convert(tmp_path)
    (tmp_path / "reviews_Books_5.json").unlink()
    with gzip.open(tmp_path / "meta_Electronics.json.gz", "at") as file:
        file.write("<html>\n")
    with pytest.raises(ValueError, match="line 10 is neither JSON nor a Python literal"):
        convert(tmp_path)
    (tmp_path / "meta_Electronics.json.gz").unlink()
    (tmp_path / "reviews_Electronics_5.json").write_text('{"reviewerID": "a", "asn": "b"}\n')
    with pytest.raises(ValueError, match="'asin' is missing; did you mean 'asn'"):
        convert(tmp_path)
