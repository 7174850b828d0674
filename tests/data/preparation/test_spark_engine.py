"""The same preparation on DuckDB and on Spark, row for row. One Spark serves the whole module."""

import dataclasses
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.preparation.duckdb_engine import DuckDBEngine
from ranker_data.preparation.plan import LastSplit, Preparation, TimeSplit
from ranker_data.preparation.prepare import prepare
from ranker_data.preparation.source import NamedFiles
from ranker_data.preparation.spark_engine import SparkEngine
from ranker_data.preparation.users import users_sql
from ranker_data.reader import DataError
from ranker_data.schema import Field, Label, Task, read_schema

pytest.importorskip("pyspark", reason="the extra 'spark' is not installed")
pytestmark = [
    pytest.mark.skipif(shutil.which("java") is None, reason="there is no java"),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

T0 = 1_600_000_000
ENGINE = SparkEngine(
    master="local[1]",
    conf={
        # compiling would take longer than running
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.shuffle.partitions": 2,
        "spark.sql.adaptive.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    },
)
PLAN = Preparation(
    name="tiny",
    time_unit="s",
    fields=(
        Field(name="user_id", kind="id", side="user", table="user"),
        Field(name="item_id", kind="id", table="item"),
        Field(name="tags", kind="ids", table="tag", weighted=True),
        Field(name="hour", kind="id", side="context", table="hour"),
        Field(name="price", kind="dense"),
    ),
    behaviors=(
        Field(name="item_id", kind="id", table="item"),
        Field(name="words", kind="ids", table="word"),
        Field(name="dwell", kind="dense"),
    ),
    labels=(Label(name="click"), Label(name="buy", requires="click")),
    tasks=(Task(name="ctr", label="click"), Task(name="cvr", label="buy", condition="click")),
    group="request",
    domain="hour",
    split=TimeSplit(valid_fraction=0.2, test_fraction=0.2),
    min_count={"item": 2},
    hashed={"word": None, "user": 50},
    nulls={"item_id": "own", "dwell": 0.5},
    num_parts=3,
)


@pytest.fixture(scope="module", autouse=True)
def _spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # holding a session open keeps the engine from starting one for each preparation
    with ENGINE.session(tmp_path_factory.mktemp("spark")):
        yield


def draw_raw(seed: int) -> tuple[pa.Table, pa.Table]:
    """Events and samples with ties, nulls, words outside ASCII, odd users and repeated rows."""
    draw = random.Random(seed)  # noqa: S311
    users = ["a", "b", "ü", "Z", "10", "9", "ghost"]
    items = ["x", "y", "Ž", "x ", "", None]
    words = [[], ["p"], ["q", None, "p"], None, ["p", "p"]]
    events = [
        {
            "user": draw.choice(users),
            "time": T0 + draw.randrange(12),
            "order": draw.randrange(2),
            "item_id": draw.choice(items),
            "words": draw.choice(words),
            "dwell": draw.choice([0.0, 1.0, None, float("nan"), float("inf")]),
        }
        for _ in range(60)
    ]
    samples = []
    for _ in range(60):
        user, click = draw.choice(users[:-1]), draw.choice([0, 1, None])
        tags = draw.choice([[], ["s"], ["s", "t", "s"], None])
        samples.append(
            {
                "user": user,
                "time": T0 + draw.randrange(12),
                "request": draw.choice(["r1", "r2", None]),
                "user_id": user,
                "item_id": draw.choice(items),
                "tags": tags,
                "tags.weight": None if tags is None else [draw.random() for _ in tags],
                "hour": draw.randrange(3),
                "price": draw.choice([0.0, -1.5, 3.25]),
                "click": click,
                "buy": draw.choice([0, 1, None]) if click == 1 else 0,
            }
        )
    return pa.Table.from_pylist(events), pa.Table.from_pylist(samples)


def content(root: Path) -> dict[str, Any]:
    files: dict[str, Any] = {
        str(path.relative_to(root)): pq.read_table(path, partitioning=None)
        for path in root.rglob("*.parquet")
    }
    return files | {"stats": json.loads((root / "stats.json").read_text())}


def write_files(folder: Path, samples: pa.Table) -> NamedFiles:
    """Two files: other names, narrower integers in the first, a further column in the second."""
    folder.mkdir()
    theirs = samples.drop_columns(["user_id"]).rename_columns({"user": "uid"})
    hour = theirs.column_names.index("hour")
    narrow = theirs.set_column(hour, "hour", theirs["hour"].cast(pa.int32()))
    pq.write_table(narrow.slice(0, 20), folder / "a.parquet")
    pq.write_table(theirs.slice(20).append_column("extra", [[0] * 40]), folder / "b.parquet")
    columns = {"user": "uid", "user_id": "uid"}
    return NamedFiles(paths=sorted(folder.iterdir()), columns=columns)


def test_both_engines_write_the_same_rows(tmp_path: Path) -> None:
    events, samples = draw_raw(seed=7)
    files = write_files(tmp_path / "raw", samples)
    for name, engine in (("duckdb", None), ("spark", ENGINE)):
        prepare(PLAN, events=events, samples=files, out=tmp_path / name, engine=engine)
    embedded, spark = content(tmp_path / "duckdb"), content(tmp_path / "spark")
    assert sorted(embedded) == sorted(spark)
    for name in embedded:
        assert embedded[name] == spark[name], name
    assert read_schema(tmp_path / "duckdb") == read_schema(tmp_path / "spark")
    # what was spilled, and half-written parts, are gone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["duckdb", "raw", "spark"]


def test_both_engines_hold_out_the_same_last_samples(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, split=LastSplit(valid_samples=1, test_samples=2))
    events, samples = draw_raw(seed=8)
    found = []
    for name, engine in (("duckdb", DuckDBEngine()), ("spark", ENGINE)):
        (tmp_path / name).mkdir()
        with engine.session(tmp_path / name) as session:
            for relation, rows in (("events", events), ("samples", samples)):
                session.open_source(relation, rows, set(rows.column_names))
            found.append(session.rows(f"SELECT * FROM ({users_sql(plan)}) AS users ORDER BY name"))
    assert found[0] == found[1]
    assert len(found[0]) == 6


def test_both_engines_name_a_bad_value(tmp_path: Path) -> None:
    events, samples = draw_raw(seed=9)
    rows = samples.to_pylist()
    rows[26]["tags"], rows[26]["tags.weight"] = ["s"], [-1.0]
    rows[27]["click"], rows[27]["buy"] = 2, 0
    files = write_files(tmp_path / "raw", pa.Table.from_pylist(rows, samples.schema))
    for engine in (None, ENGINE):
        with pytest.raises(DataError) as error:
            prepare(PLAN, events=events, samples=files, out=tmp_path / "out", engine=engine)
        assert "b.parquet: column 'tags.weight', row 6 is [-1.0], ['s']" in str(error.value)
        assert "b.parquet: column 'click', row 7 is 2 (1 such row(s))" in str(error.value)
