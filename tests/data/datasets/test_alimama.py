import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.alimama import AlimamaConverter
from ranker_data.layout import SPLITS
from ranker_data.schema import read_schema

T0 = 1_494_100_000


def write_original(folder: Path) -> None:
    shown = [f"{u},{T0 + 100 * u + s},{1 + s % 2},430548_1007,{1 - s % 2},{s % 2}"
             for u in (1, 2) for s in range(6)]  # fmt: skip
    (folder / "raw_sample.csv").write_text(
        "user,time_stamp,adgroup_id,pid,nonclk,clk\n" + "\n".join(shown) + "\n"
    )
    (folder / "ad_feature.csv").write_text(
        "adgroup_id,cate_id,campaign_id,customer,brand,price\n1,10,5,7,99,12.5\n2,11,5,7,NULL,3\n"
    )
    # the last name of the original header is followed by a blank
    (folder / "user_profile.csv").write_text(
        "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,"
        "occupation,new_user_class_level \n1,0,5,2,5,,3,0,3\n"
    )
    (folder / "behavior_log.csv").write_text(
        "user,time_stamp,btag,cate,brand\n"
        f"1,{T0 + 50},pv,10,99\n1,{T0 + 103},buy,11,1\n1,{T0 - 900000000},pv,10,99\n"
        f"2,{T0 + 50},cart,10,99\n"
    )


def read(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths]).to_pylist()


def values_of(out: Path, table: str) -> dict[int, str]:
    rows = pq.read_table(out / "vocabulary" / f"{table}.parquet").to_pylist()
    return {0: "?"} | {row["id"]: row["value"] for row in rows}


def test_original_files(tmp_path: Path) -> None:
    write_original(tmp_path)
    out = tmp_path / "out"
    schema = AlimamaConverter(num_parts=1).prepare(tmp_path, out)
    rows = [row for split in SPLITS for row in read(out / "samples" / split)]
    rows.sort(key=lambda row: row["sample_id"])
    assert [row["history_end"] for row in rows] == [1, 1, 1, 1, 2, 2, *[1] * 6]
    assert [row["click"] for row in rows[:4]] == [0, 1, 0, 1]
    genders, brands = values_of(out, "final_gender_code"), values_of(out, "brand")
    assert [genders[row["final_gender_code"]] for row in (rows[0], rows[-1])] == ["2", "?"]
    assert [brands[row["brand"]] for row in rows[:2]] == ["99", "?"]
    behaviors = values_of(out, "behavior")
    events = [(e["user"], behaviors[e["behavior"]]) for e in read(out / "behaviors")]
    assert events == [(1, "pv"), (1, "buy"), (2, "cart")]
    raw = json.loads((out / "stats.json").read_text())["raw"]
    assert raw["events_outside_the_log"] == 1
    assert raw["samples_without_profile"] == 6
    assert schema.domain_names == ("unknown", "430548_1007")


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    write_original(tmp_path)
    path = tmp_path / "ad_feature.csv"
    path.write_text(path.read_text().replace("campaign_id", "campaign"))
    with pytest.raises(ValueError, match=r"ad_feature.csv: column 'campaign_id' is missing; did"):
        AlimamaConverter().prepare(tmp_path, tmp_path / "out")
    path.unlink()
    with pytest.raises(ValueError, match=r"none of the original files ad_feature.csv"):
        AlimamaConverter().prepare(tmp_path, tmp_path / "out")


def test_real_joined_sample(real_data: Path, tmp_path: Path) -> None:
    AlimamaConverter(num_parts=2).prepare(real_data / "alimama_ads", tmp_path / "out")
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["num_users"] == 8328
    assert sum(split["num_rows"] for split in stats["samples"].values()) == 9999
    clicks = sum(split["labels"]["click"]["positive"] for split in stats["samples"].values())
    assert clicks / 9999 == pytest.approx(0.0435, abs=1e-4)
    schema = read_schema(tmp_path / "out")
    assert schema.behaviors == ()
    lists = [row["tag_categories"] for row in read(tmp_path / "out" / "samples" / "train")]
    assert max(len(tags) for tags in lists) == 5
