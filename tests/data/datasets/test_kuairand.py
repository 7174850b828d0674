import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.kuairand import KuairandConverter
from ranker_data.layout import SPLITS

T0 = 1_649_400_000_000
LOG_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
    "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
    "is_profile_enter,is_rand,tab"
)


def log_row(user: int, video: int, second: int, click: int, play: int, random: int = 0) -> str:
    return (
        f"{user},{video},20220408,1400,{T0 + second * 1000},{click},{click},0,0,0,0,{click},"
        f"{play * 1000},10000,0,0,0,{random},{video % 2}"
    )


def write_files(folder: Path) -> None:
    standard = [log_row(u, v, 10 * v, v % 2, 5) for u in (0, 1) for v in range(8)]
    # a long playing: its event is not over when the next video is shown
    standard.append(log_row(0, 9, 81, 1, 60))
    standard.append(log_row(0, 3, 90, 0, 0))
    random = [log_row(1, 5, 200 + i, 0, 0, random=1) for i in range(3)]
    for name, rows in (
        ("log_standard_4_08_to_4_21_pure", standard),
        ("log_random_4_22_to_5_08_pure", random),
    ):
        (folder / f"{name}.csv").write_text("\n".join([LOG_HEADER, *rows]) + "\n")
    onehot = ",".join(f"onehot_feat{i}" for i in range(18))
    (folder / "user_features_pure.csv").write_text(
        "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
        "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
        f"friend_user_num_range,register_days,register_days_range,{onehot}\n"
        f'0,full_active,0,0,0,5,"(0,10]",0,0,0,0,107,61-90,{",".join(["1"] * 17)},\n'
    )
    (folder / "video_features_basic_pure.csv").write_text(
        "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
        "server_width,server_height,music_id,music_type,tag\n"
        '1,77,NORMAL,2022-04-01,LongImport,public,11066.0,720,1280,3,9.0,"34,23"\n'
        "2,78,AD,2022-04-01,LongImport,public,,720,1280,3,9.0,\n"
    )


def read(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths]).to_pylist()


def samples_of(out: Path) -> list[dict[str, Any]]:
    rows = [row for split in SPLITS for row in read(out / "samples" / split)]
    return sorted(rows, key=lambda row: row["sample_id"])


def values_of(out: Path, table: str) -> dict[int, str]:
    rows = pq.read_table(out / "vocabulary" / f"{table}.parquet").to_pylist()
    return {0: "?"} | {row["id"]: row["value"] for row in rows}


def test_files_of_the_pure_size(tmp_path: Path) -> None:
    write_files(tmp_path)
    out = tmp_path / "out"
    schema = KuairandConverter(num_parts=1).prepare(tmp_path, out)
    rows, tags = samples_of(out), values_of(out, "tag")
    assert len(rows) == 21
    first = [row for row in rows if row["user"] == 1]
    # videos 1, 3, 5, 7 were clicked and played for 5 s; video 9 still plays at second 90
    assert [row["history_end"] for row in first] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [row["click"] for row in first] == [0, 1, 0, 1, 0, 1, 0, 1, 1, 0]
    assert [[tags[t] for t in row["tags"]] for row in first[:3]] == [[], ["34", "23"], []]
    ranges = values_of(out, "follow_user_num_range")
    assert ranges[first[0]["follow_user_num_range"]] == "(0,10]"
    assert {row["onehot_feat17"] for row in rows} == {0}
    assert set(schema.domain_names) == {"unknown", "0", "1"}
    assert [task.name for task in schema.tasks][:2] == ["ctr", "like"]
    # 77 is the only author that was played
    authors = values_of(out, "author")
    assert [authors[e["author"]] for e in read(out / "behaviors")][:2] == ["77", "?"]


def test_random_exposures_can_be_left_out(tmp_path: Path) -> None:
    write_files(tmp_path)
    KuairandConverter(num_parts=1, random_exposures=False).prepare(tmp_path, tmp_path / "out")
    assert len(samples_of(tmp_path / "out")) == 18
    raw = json.loads((tmp_path / "out" / "stats.json").read_text())["raw"]
    assert raw["random_exposures_left_out"] == 3


def test_bad_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no log_\*.csv"):
        KuairandConverter().prepare(tmp_path, tmp_path / "out")
    write_files(tmp_path)
    path = tmp_path / "log_random_4_22_to_5_08_pure.csv"
    path.write_text(path.read_text().replace("is_forward", "is_foward"))
    with pytest.raises(ValueError, match=r"log_random.*: column 'is_forward' is missing; did you"):
        KuairandConverter().prepare(tmp_path, tmp_path / "out")
