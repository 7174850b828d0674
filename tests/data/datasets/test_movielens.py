import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.movielens import MovielensConverter
from ranker_data.layout import SPLITS
from ranker_data.schema import Schema

# user, movie, rating, time; user 1 rates two movies in the same second
RATINGS = [
    (1, 10, 5, 978_300_000),
    (1, 20, 3, 978_300_050),
    (1, 30, 4, 978_300_050),
    (1, 10, 2, 978_300_100),
    (2, 20, 4, 978_300_010),
    (2, 30, 1, 978_300_020),
    (2, 10, 4, 978_300_020),
]
MOVIES = {
    10: ("Le Fabuleux Destin d'Amélie (2001)", ["Comedy", "Romance"]),
    20: ('It, "Part" 1', ["Horror"]),
}


def write_dat(folder: Path) -> None:
    ratings = "".join("::".join(map(str, row)) + "\n" for row in RATINGS)
    (folder / "ratings.dat").write_text(ratings, encoding="latin-1")
    movies = "".join(f"{k}::{title}::{'|'.join(g)}\n" for k, (title, g) in MOVIES.items())
    (folder / "movies.dat").write_text(movies, encoding="latin-1")
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")


def write_csv(folder: Path) -> None:
    lines = ["userId,movieId,rating,timestamp"] + [f"{u},{m},{r}.0,{t}" for u, m, r, t in RATINGS]
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    titles = {k: '"' + title.replace('"', '""') + '"' for k, (title, _) in MOVIES.items()}
    lines = [f"{k},{titles[k]},{'|'.join(genres)}" for k, (_, genres) in MOVIES.items()]
    text = "\n".join(["movieId,title,genres", *lines, "30,Nothing (1999),(no genres listed)"])
    (folder / "movies.csv").write_text(text + "\n", encoding="utf-8")


def write_atomic(folder: Path) -> None:
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += [f"{u}\t{m}\t{r}\t{t}" for u, m, r, t in RATINGS]
    (folder / "ml.inter").write_text("\n".join(lines) + "\n")
    lines = [f"{k}\t{title}\t{' '.join(genres)}" for k, (title, genres) in MOVIES.items()]
    header = "item_id:token\tmovie_title:token_seq\tgenre:token_seq"
    (folder / "ml.item").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    header = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"
    (folder / "ml.user").write_text(f"{header}\n1\t1\tF\t10\t48067\n2\t56\tM\t16\t70072\n")


def write_parquet(folder: Path) -> None:
    users, movies, ratings, times = zip(*RATINGS, strict=True)
    pq.write_table(
        pa.table(
            {
                "user_id:token": [str(u) for u in users],
                "item_id:token": [str(m) for m in movies],
                "rating:float": pa.array(ratings, pa.int8()),
                "timestamp:float": pa.array(times, pa.int32()),
            }
        ),
        folder / "inter.parquet",
    )
    genres = [" ".join(genres) for _, genres in MOVIES.values()]
    table = pa.table({"item_id:token": [str(k) for k in MOVIES], "genre:token": genres})
    pq.write_table(table, folder / "item.parquet")


def read(folder: Path) -> list[dict[str, Any]]:
    return pa.concat_tables(
        [pq.read_table(p, partitioning=None) for p in sorted(folder.glob("*.parquet"))]
    ).to_pylist()


def vocabulary(out: Path, table: str) -> dict[int, str]:
    rows = pq.read_table(out / "vocabulary" / f"{table}.parquet").to_pylist()
    return {0: "?"} | {row["id"]: row["value"] for row in rows}


def convert(source: Path, out: Path, **options: Any) -> Schema:
    options = {"num_parts": 1, "valid_samples": 0, "test_samples": 1} | options
    return MovielensConverter(**options).prepare(source, out)


@pytest.mark.parametrize("write", [write_dat, write_csv, write_atomic, write_parquet])
def test_all_formats_give_the_same_data(write: Callable[[Path], None], tmp_path: Path) -> None:
    source = tmp_path / "raw"
    source.mkdir()
    write(source)
    schema = convert(source, tmp_path / "out")
    items, genres = vocabulary(tmp_path / "out", "item"), vocabulary(tmp_path / "out", "genre")
    rows = [row for split in SPLITS for row in read(tmp_path / "out" / "samples" / split)]
    rows.sort(key=lambda row: row["sample_id"])
    found = [
        (row["user"], row["time"] - 978_300_000, items[row["item_id"]], row["like"]) for row in rows
    ]
    assert sorted(found) == sorted((u, t - 978_300_000, str(m), r >= 4) for u, m, r, t in RATINGS)
    listed = {items[row["item_id"]]: sorted(genres[g] for g in row["genres"]) for row in rows}
    assert listed == {"10": ["Comedy", "Romance"], "20": ["Horror"], "30": []}
    # ratings of the same second do not see each other
    assert [row["history_end"] for row in rows] == [0, 1, 1, 3, 0, 1, 1]
    ratings = vocabulary(tmp_path / "out", "rating")
    events = read(tmp_path / "out" / "behaviors")
    assert float(ratings[next(e["rating"] for e in events if e["user"] == 1)]) == 5
    profile = [field.name for field in schema.fields if field.side == "user"]
    if write in (write_dat, write_atomic):
        assert profile == ["user_id", "gender", "age", "occupation"]
        assert vocabulary(tmp_path / "out", "gender")[rows[0]["gender"]] == "F"
    else:
        assert profile == ["user_id"]


def test_last_ratings_of_a_user_are_held_out_with_their_ties(tmp_path: Path) -> None:
    write_dat(tmp_path)
    convert(tmp_path, tmp_path / "out")
    held_out = read(tmp_path / "out" / "samples" / "test")
    assert [(row["user"], row["time"]) for row in held_out] == [
        (1, 978_300_100),
        (2, 978_300_020),
        (2, 978_300_020),
    ]


def test_split_in_time(tmp_path: Path) -> None:
    write_dat(tmp_path)
    convert(tmp_path, tmp_path / "out", split="time", valid_fraction=0.0, test_fraction=0.4)
    assert [row["time"] for row in read(tmp_path / "out" / "samples" / "test")] == [
        978_300_050,
        978_300_050,
        978_300_100,
    ]


def test_bad_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a source"):
        MovielensConverter().prepare(None, tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds no MovieLens files; expected ratings\.dat"):
        MovielensConverter().prepare(tmp_path, tmp_path / "out")
    (tmp_path / "ratings.csv").write_text("userId,movie,rating,timestamp\n1,2,3,4\n")
    with pytest.raises(
        ValueError, match=r"ratings\.csv: column 'movieId' is missing; did you mean 'movie'"
    ):
        MovielensConverter().prepare(tmp_path, tmp_path / "out")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,good,4\n")
    with pytest.raises(ValueError, match=r"(?s)the original files cannot be read.*1,2,good,4"):
        MovielensConverter().prepare(tmp_path, tmp_path / "out")
    (tmp_path / "ratings.csv").unlink()
    (tmp_path / "a.inter").write_text("")
    (tmp_path / "b.inter").write_text("")
    with pytest.raises(ValueError, match=r"holds several data sets \(a\.inter, b\.inter\)"):
        MovielensConverter().prepare(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="split is 'random', must be 'last' or 'time'"):
        MovielensConverter(split="random")


def test_real_data(real_data: Path, tmp_path: Path) -> None:
    MovielensConverter(num_parts=4).prepare(real_data / "movielens_1m", tmp_path / "out")
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["num_users"] == 6040
    assert stats["behaviors"]["num_rows"] == 1_000_209
    assert stats["behaviors"]["events_per_user"]["max"] == 2314
    rows = sum(split["num_rows"] for split in stats["samples"].values())
    likes = sum(split["labels"]["like"]["positive"] for split in stats["samples"].values())
    assert rows == 1_000_209
    assert likes / rows == pytest.approx(0.575, abs=0.001)


@pytest.mark.parametrize(
    ("further", "end"),
    [
        (("genome-scores.csv", "genome-tags.csv", "links.csv", "tags.csv"), "\n"),
        (("links.csv", "tags.csv", "README.txt"), "\r\n"),
    ],
    ids=["20M and 25M", "32M"],
)
def test_the_large_sets_have_half_stars_and_further_files(
    further: tuple[str, ...], end: str, tmp_path: Path
) -> None:
    ratings = ["1,2,3.5,1112486027", "1,29,4.5,1112484676", "1,32,4.0,1112484819"]
    ratings += ["2,2,0.5,974820889"]
    movies = [
        '2,"American President, The (1995)",Comedy|Drama|Romance',
        "29,Léon: The Professional (1994),Sci-Fi",
        "32,Twelve Monkeys (a.k.a. 12 Monkeys) (1995),(no genres listed)",
    ]
    for name, header, lines in (
        ("ratings.csv", "userId,movieId,rating,timestamp", ratings),
        ("movies.csv", "movieId,title,genres", movies),
    ):
        text = end.join([header, *lines, ""])
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    for name in further:
        (tmp_path / name).write_text("not,for,us\n")
    convert(tmp_path, tmp_path / "out")
    rows = [row for split in SPLITS for row in read(tmp_path / "out" / "samples" / split)]
    items, genres = vocabulary(tmp_path / "out", "item"), vocabulary(tmp_path / "out", "genre")
    likes = {(row["user"], row["time"]): row["like"] for row in rows}
    assert likes == {
        (1, 1112486027): 0.0,
        (1, 1112484676): 1.0,
        (1, 1112484819): 1.0,
        (2, 974820889): 0.0,
    }
    listed = {
        items[row["item_id"]]: sorted(genres[g] for g in row["genres"])
        for row in rows
        if row["item_id"]
    }
    assert listed["29"] == ["Sci-Fi"]
    assert listed["32"] == []
    # seen again in the history of the last rating
    assert set(vocabulary(tmp_path / "out", "rating").values()) >= {"4.5", "0.5"}
