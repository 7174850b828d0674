import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.taobao import TaobaoConverter
from ranker_data.layout import SPLITS

# 2017-11-25 08:00 in Beijing
T0 = 1_511_568_000
DAY = 86_400
# user, item, category, behaviour, seconds after T0
LOG = [
    (1, 10, 5, "pv", 0),
    (1, 10, 5, "cart", 30),
    (1, 10, 5, "buy", 60),
    (1, 11, 5, "pv", 100),
    # bought, but more than a day later
    (1, 11, 5, "buy", 100 + DAY + 1),
    (2, 12, 6, "pv", 200),
    (2, 12, 6, "fav", 200),
    # a purchase of somebody else
    (2, 13, 6, "pv", 300),
    (1, 13, 6, "buy", 310),
    (3, 14, 6, "pv", 400),
    (3, 15, 6, "pv", 500),
    (3, 10, 5, "pv", 600),
]
# stray times, and a view of the last day
STRAY = [(1, 10, 5, "pv", -50 * DAY), (2, 10, 5, "pv", 8 * DAY)]


def read(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths]).to_pylist()


def convert(source: Path, **options: Any) -> list[dict[str, Any]]:
    rows = [f"{u},{i},{c},{b},{T0 + s}" for u, i, c, b, s in [*LOG, LOG[0], *STRAY]]
    (source / "UserBehavior.csv").write_text("\n".join(rows) + "\n")
    options = {"num_parts": 1, "valid_fraction": 0.0, "test_fraction": 0.0} | options
    TaobaoConverter(**options).prepare(source, source / "out")
    found = [row for split in SPLITS for row in read(source / "out" / "samples" / split)]
    return sorted(found, key=lambda row: row["sample_id"])


def test_labels_and_histories(tmp_path: Path) -> None:
    rows = convert(tmp_path, negatives=0)
    found = [
        (r["user"], r["time"] - T0, r["history_end"], r["buy"], r["cart"], r["fav"]) for r in rows
    ]
    assert found == [
        (1, 0, 0, 1, 1, 0),
        (1, 100, 3, 0, 0, 0),
        (2, 200, 0, 0, 0, 1),
        (2, 300, 2, 0, 0, 0),
        (3, 400, 0, 0, 0, 0),
        (3, 500, 1, 0, 0, 0),
        (3, 600, 2, 0, 0, 0),
    ]
    raw = json.loads((tmp_path / "out" / "stats.json").read_text())["raw"]
    assert raw["rows_outside_the_nine_days"] == 1
    assert raw["repeated_rows"] == 1
    assert raw["page_views_with_unknown_outcome"] == 1
    vocabulary = pq.read_table(tmp_path / "out" / "vocabulary" / "behavior.parquet")
    assert sorted(vocabulary["value"].to_pylist()) == ["buy", "cart", "fav", "pv"]
    # eight o'clock in Beijing
    hours = pq.read_table(tmp_path / "out" / "vocabulary" / "hour.parquet")
    assert hours["value"].to_pylist() == ["8"]


def test_negatives_are_of_earlier_views_and_unknown_to_the_user(tmp_path: Path) -> None:
    rows = convert(tmp_path, negatives=2)
    table = pq.read_table(tmp_path / "out" / "vocabulary" / "item.parquet").to_pylist()
    items = {row["id"]: int(row["value"]) for row in table}
    first_view: dict[int, int] = {}
    for _, item, _, kind, second in LOG:
        if kind == "pv":
            first_view.setdefault(item, second)
    negatives = [row for row in rows if row["click"] == 0]
    for row in negatives:
        item = items[row["item_id"]]
        assert first_view[item] < row["time"] - T0
        assert item not in {i for user, i, *_ in LOG if user == row["user"]}
        assert row["buy"] == row["cart"] == row["fav"] == 0
    # nothing was viewed before the first view, and before the second only what its user knows
    assert {row["time"] - T0 for row in negatives} == {200, 300, 400, 500, 600}
    requests = {row["request"] for row in negatives}
    assert requests <= {row["request"] for row in rows if row["click"] == 1}


def test_settings_and_sources_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"label_hours \(0\) must be at least 1"):
        TaobaoConverter(label_hours=0)
    with pytest.raises(ValueError, match=r"none of the original files UserBehavior.csv"):
        TaobaoConverter().prepare(tmp_path, tmp_path / "out")
    (tmp_path / "UserBehavior.csv").write_text("1,2,3,pv\n")
    with pytest.raises(ValueError, match="the original files cannot be read"):
        TaobaoConverter().prepare(tmp_path, tmp_path / "out")


def test_real_data(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "taobao_userbehavior" / "users_first84k.parquet"
    TaobaoConverter(num_parts=2, negatives=0).prepare(source, tmp_path / "out")
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["behaviors"]["num_rows"] == 84_475 - 35 - 27
    labels = [split["labels"] for split in stats["samples"].values()]
    clicks = sum(label["click"]["positive"] for label in labels)
    buys = sum(label["buy"]["positive"] for label in labels)
    assert clicks == 75_872 - 10_156 - 35
    assert buys / clicks == pytest.approx(0.0224, abs=0.0001)
