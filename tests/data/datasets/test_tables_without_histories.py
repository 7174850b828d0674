"""Criteo, Avazu and census income: one row a sample, no events."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.avazu import AvazuConverter
from ranker_data.datasets.census_income import CensusIncomeConverter
from ranker_data.datasets.criteo import CriteoConverter
from ranker_data.layout import SPLITS
from ranker_data.schema import read_schema


def read(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths]).to_pylist()


def samples_of(out: Path) -> list[dict[str, Any]]:
    rows = [row for split in SPLITS for row in read(out / "samples" / split)]
    return sorted(rows, key=lambda row: row["time"])


def values_of(out: Path, table: str) -> dict[int, str]:
    rows = pq.read_table(out / "vocabulary" / f"{table}.parquet").to_pylist()
    return {0: "?"} | {row["id"]: row["value"] for row in rows}


def rate_of(out: Path, label: str) -> tuple[int, float]:
    stats = json.loads((out / "stats.json").read_text())
    rows = sum(split["num_rows"] for split in stats["samples"].values())
    positive = sum(split["labels"][label]["positive"] for split in stats["samples"].values())
    return rows, positive / rows


def test_criteo_keeps_the_order_and_says_what_is_missing(tmp_path: Path) -> None:
    lines = []
    for row in range(40):
        counts = ["", "-3", *[str(row)] * 11]
        categories = ["68fd1e64", "" if row % 2 else "80e26c9b", *[f"{row:08x}"] * 24]
        lines.append("\t".join([str(row % 4 // 3), *counts, *categories]))
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    CriteoConverter(num_parts=2, min_count=2).prepare(tmp_path, out)
    rows = samples_of(out)
    assert [row["click"] for row in rows] == [float(row % 4 == 3) for row in range(40)]
    for number, found in enumerate(rows):
        assert (found["I1"], found["I1_known"]) == (0, 0)
        assert found["I2"] == pytest.approx(-math.log(4))
        assert found["I3"] == pytest.approx(math.log(1 + number))
        assert found["I3_known"] == 1
    values = values_of(out, "C2")
    assert [values[row["C2"]] for row in rows[:2]] == ["80e26c9b", "?"]
    # values seen once get no id
    assert {row["C3"] for row in rows} == {0}
    assert read(out / "behaviors") == []
    assert [len(read(out / "samples" / split)) for split in SPLITS] == [32, 4, 4]


def test_avazu_hours_and_devices(tmp_path: Path) -> None:
    names = [f"C{number}" for number in range(14, 22)]
    header = (
        "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,"
        f"app_category,device_id,device_ip,device_model,device_type,device_conn_type,{','.join(names)}"
    )
    lines = [
        f"{1000 + row},{row % 2},141021{row // 4:02d},1005,0,s,d,c,a,ad,ac,"
        f"{'a99f214a' if row % 2 else 'dev1'},ip{row % 4},model,1,2,{','.join(['7'] * 7)},-1"
        for row in range(40)
    ]
    (tmp_path / "train.csv").write_text("\n".join([header, *lines]) + "\n")
    out = tmp_path / "out"
    AvazuConverter(num_parts=1).prepare(tmp_path, out)
    rows = samples_of(out)
    # 2014-10-21 00:00 UTC
    assert [(row["time"] - 1_413_849_600) // 3600 for row in rows] == [n // 4 for n in range(40)]
    hours = values_of(out, "hour_of_day")
    train = read(out / "samples" / "train")
    assert {hours[row["hour_of_day"]] for row in train} == {str(hour) for hour in range(8)}
    # one device with an id, two addresses without
    assert len({row["user"] for row in rows}) == 3
    missing = (tmp_path / "train.csv").read_text().replace("banner_pos", "banner")
    (tmp_path / "train.csv").write_text(missing)
    with pytest.raises(ValueError, match="'banner_pos' is missing; did you mean 'banner'"):
        AvazuConverter().prepare(tmp_path, tmp_path / "other")


def census_line(row: int) -> str:
    values = [f" v{column}" for column in range(42)]
    for column in (0, 5, 16, 17, 18, 24, 30, 39):
        values[column] = f" {row}"
    values[7] = " Never married" if row % 2 else " Divorced"
    values[25] = " ?"
    values[41] = " 50000+." if row % 5 == 0 else " - 50000."
    return ",".join(values)


def test_census_files_are_the_splits(tmp_path: Path) -> None:
    for name, rows in (("data", range(60)), ("test", range(60, 90))):
        lines = [census_line(row) for row in rows]
        (tmp_path / f"census-income.{name}").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    CensusIncomeConverter(num_parts=1).prepare(tmp_path, out)
    splits = {split: read(out / "samples" / split) for split in SPLITS}
    ages = {split: sorted(row["age"] for row in rows) for split, rows in splits.items()}
    assert ages["train"] == list(range(60))
    assert sorted(ages["valid"] + ages["test"]) == list(range(60, 90))
    assert len(ages["valid"]) == 15
    for row in splits["train"]:
        assert row["high_income"] == (row["age"] % 5 == 0)
        assert row["never_married"] == row["age"] % 2
        assert row["migration_msa"] == 0
    names = {field.name for field in read_schema(out).fields}
    assert not names & {"marital_status", "income", "instance_weight"}


def test_real_criteo(real_data: Path, tmp_path: Path) -> None:
    CriteoConverter(num_parts=2).prepare(
        real_data / "criteo" / "kaggle_head_8k.parquet", tmp_path / "out"
    )
    rows, rate = rate_of(tmp_path / "out", "click")
    assert (rows, round(rate, 3)) == (8000, 0.216)


def test_real_avazu(real_data: Path, tmp_path: Path) -> None:
    AvazuConverter(num_parts=2).prepare(real_data / "avazu" / "train_1w.parquet", tmp_path / "out")
    rows, rate = rate_of(tmp_path / "out", "click")
    assert (rows, round(rate, 3)) == (9999, 0.171)


def test_real_census_income(real_data: Path, tmp_path: Path) -> None:
    CensusIncomeConverter().prepare(
        real_data / "census_income" / "census_income_test.parquet", tmp_path / "out"
    )
    rows, rate = rate_of(tmp_path / "out", "high_income")
    assert (rows, round(rate, 3)) == (99_762, 0.062)
    assert rate_of(tmp_path / "out", "never_married")[1] == pytest.approx(0.43, abs=0.01)
