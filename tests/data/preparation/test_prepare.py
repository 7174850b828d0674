import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.layout import SPLITS, behaviors_path, samples_path
from ranker_data.preparation.output import staged_output
from ranker_data.preparation.plan import LastSplit, Preparation, TimeSplit
from ranker_data.preparation.prepare import prepare
from ranker_data.reader import DataError
from ranker_data.schema import Field, Label, Schema, Task, read_schema

T0 = 1_600_000_000

PLAN = Preparation(
    name="tiny",
    time_unit="s",
    fields=(
        Field(name="user_id", kind="id", side="user", table="user"),
        Field(name="item_id", kind="id", table="item"),
        Field(name="tags", kind="ids", table="tag"),
        Field(name="price", kind="dense"),
    ),
    behaviors=(
        Field(name="item_id", kind="id", table="item"),
        Field(name="dwell", kind="dense"),
    ),
    labels=(Label(name="click"), Label(name="buy", requires="click")),
    tasks=(Task(name="ctr", label="click"), Task(name="cvr", label="buy", condition="click")),
    domain="item_id",
    split=TimeSplit(valid_fraction=0.2, test_fraction=0.2),
    num_parts=3,
)


def make_events(rows: list[tuple[str, int, str]]) -> pa.Table:
    users, times, items = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "user": pa.array(users, pa.string()),
            "time": pa.array([T0 + t for t in times], pa.int64()),
            "item_id": pa.array(items, pa.string()),
            "dwell": pa.array(range(len(rows)), pa.float64()),
        }
    )


def make_samples(rows: list[tuple[str, int, str]]) -> pa.Table:
    users, times, items = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "user": pa.array(users, pa.string()),
            "time": pa.array([T0 + t for t in times], pa.int64()),
            "user_id": pa.array(users, pa.string()),
            "item_id": pa.array(items, pa.string()),
            "tags": pa.array([[item, "all"] for item in items], pa.list_(pa.string())),
            "price": pa.array([float(i) for i in range(len(rows))], pa.float64()),
            "click": pa.array([i % 2 for i in range(len(rows))], pa.int64()),
            "buy": pa.array([0] * len(rows), pa.int64()),
        }
    )


EVENTS = make_events(
    [("a", 1, "x"), ("a", 2, "y"), ("b", 2, "x"), ("a", 5, "z"), ("ghost", 1, "x")]
)
SAMPLES = make_samples(
    [("a", 2, "x"), ("a", 5, "y"), ("b", 2, "w"), ("a", 6, "x"), ("a", 9, "new")]
)


def read_all(
    root: Path, schema: Schema
) -> tuple[list[dict[str, Any]], dict[int, list[dict[str, Any]]]]:
    """All samples with their split and part, and the events by user key."""
    num_parts = len(list((root / "behaviors").iterdir()))
    samples: list[dict[str, Any]] = []
    events: dict[int, list[dict[str, Any]]] = {}
    for part in range(num_parts):
        for row in pq.read_table(behaviors_path(root, part), partitioning=None).to_pylist():
            events.setdefault(row["user"], []).append(row | {"part": part})
        for split in SPLITS:
            table = pq.read_table(samples_path(root, split, part), partitioning=None)
            samples += [row | {"split": split, "part": part} for row in table.to_pylist()]
    return samples, events


def vocabulary(root: Path, table: str) -> dict[str, int]:
    rows = pq.read_table(root / "vocabulary" / f"{table}.parquet").to_pylist()
    return {row["value"]: row["id"] for row in rows}


def test_prepare_writes_ids_histories_splits_and_moments(tmp_path: Path) -> None:
    schema = prepare(PLAN, events=EVENTS, samples=SAMPLES, out=tmp_path / "out")
    assert read_schema(tmp_path / "out") == schema
    # before the validation moment (6): events x3 (one of a user without samples is dropped), y, and
    # samples x, y, w
    assert vocabulary(tmp_path / "out", "item") == {"x": 1, "y": 2, "w": 3, "z": 4}
    assert schema.domain_names == ("unknown", "x", "y", "w", "z")
    samples, events = read_all(tmp_path / "out", schema)
    by_id = {row["sample_id"]: row for row in samples}
    assert sorted(by_id) == [0, 1, 2, 3, 4]
    # samples of "a" come first: ids follow the user's name and the time
    assert [by_id[i]["history_end"] for i in range(5)] == [1, 2, 3, 3, 0]
    assert [by_id[i]["item_id"] for i in range(5)] == [1, 2, 1, 0, 3]
    assert [by_id[i]["split"] for i in range(5)] == ["train", "train", "valid", "test", "train"]
    tags = vocabulary(tmp_path / "out", "tag")
    assert by_id[3]["tags"] == [0, tags["all"]]
    assert [by_id[i]["request"] for i in range(5)] == [0, 1, 2, 3, 4]
    assert sum(len(rows) for rows in events.values()) == 4
    price = next(field for field in schema.fields if field.name == "price")
    assert price.mean == pytest.approx(np.mean([0.0, 1.0, 2.0]), rel=1e-5)
    assert price.std == pytest.approx(np.std([0.0, 1.0, 2.0]), rel=1e-5)
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["raw"] == {"events": 5, "samples": 5, "events_of_users_without_samples": 1}
    assert stats["samples"]["train"]["labels"]["click"] == {
        "defined": 3,
        "positive": 1,
        "rate": 0.333333,
    }
    # nothing but the data set is left
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


user_times = st.tuples(st.sampled_from("abcde"), st.integers(0, 12), st.sampled_from("uvwxyz"))


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    events=st.lists(user_times, max_size=40),
    samples=st.lists(user_times, min_size=12, max_size=40),
    num_parts=st.integers(1, 4),
    last=st.booleans(),
)
def test_prepare_equals_a_brute_force_reference(
    events: list[tuple[str, int, str]],
    samples: list[tuple[str, int, str]],
    num_parts: int,
    last: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    split: Any = (
        LastSplit(valid_samples=0, test_samples=1)
        if last
        else TimeSplit(valid_fraction=0.0, test_fraction=0.1)
    )
    counts = {user: sum(s[0] == user for s in samples) for user, _, _ in samples}
    # time ties may leave nothing for testing or training, which is an error of its own
    if last:
        hypothesis.assume(any(n > 1 for n in counts.values()))
        firsts = {
            u: max(t for v, t, _ in samples if v == u) if counts[u] > 1 else 99 for u in counts
        }
    else:
        # the moment with the nearest share of earlier samples; 99 is after all of them
        late = min(
            [*sorted({t for _, t, _ in samples}), 99],
            key=lambda m: (
                round(abs(sum(t < m for _, t, _ in samples) - 0.9 * len(samples)), 6),
                m,
            ),
        )
        hypothesis.assume(late < 99)
        firsts = dict.fromkeys(counts, late)
    hypothesis.assume(any(t < firsts[u] for u, t, _ in samples))
    plan = dataclasses.replace(PLAN, split=split, num_parts=num_parts)
    root = tmp_path_factory.mktemp("prepared") / "out"
    schema = prepare(plan, events=make_events(events), samples=make_samples(samples), out=root)
    rows, log = read_all(root, schema)
    names = {i + 1: name for i, name in enumerate(sorted(counts))}
    assert sorted(row["sample_id"] for row in rows) == list(range(len(samples)))
    assert sorted((names[r["user"]], r["time"] - T0, r["price"]) for r in rows) == sorted(
        (user, time, float(i)) for i, (user, time, _) in enumerate(samples)
    )
    seen = [e[2] for e in events if e[0] in counts and e[1] < firsts[e[0]]]
    seen += [s[2] for s in samples if s[1] < firsts[s[0]]]
    order = sorted(set(seen), key=lambda value: (-seen.count(value), value))
    assert vocabulary(root, "item") == {value: i + 1 for i, value in enumerate(order)}
    for row in rows:
        user = names[row["user"]]
        visible = log.get(row["user"], [])[: row["history_end"]]
        assert len(visible) == sum(e[0] == user and T0 + e[1] < row["time"] for e in events)
        assert all(event["time"] < row["time"] for event in visible)
        # part i of the samples refers to part i of the events
        assert all(event["part"] == row["part"] for event in log.get(row["user"], []))
        assert row["split"] == ("test" if row["time"] - T0 >= firsts[user] else "train")
    per_part = [sum(row["part"] == part for row in rows) for part in range(num_parts)]
    assert sum(per_part) == len(samples)


def visible_items(root: Path) -> list[list[int]]:
    """What each sample sees, in the order of the samples."""
    rows, log = read_all(root, read_schema(root))
    rows.sort(key=lambda row: row["sample_id"])
    return [
        [event["item_id"] for event in log.get(row["user"], [])[: row["history_end"]]]
        for row in rows
    ]


@hypothesis.settings(max_examples=6, deadline=None)
@hypothesis.given(data=st.data())
def test_the_future_changes_nothing(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    samples = [(user, time, item) for user in "ab" for time, item in ((3, "x"), (6, "y"), (9, "x"))]
    past = data.draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=8))
    # at the first sample's moment or later; all values are known from the samples before the cut
    future = data.draw(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(3, 12)), min_size=1, max_size=8)
    )
    plan = dataclasses.replace(PLAN, split=TimeSplit(valid_fraction=0.0, test_fraction=0.34))
    root = tmp_path_factory.mktemp("prepared")
    known = [(user, time, "xyz"[i % 3]) for i, (user, time) in enumerate(past)]
    for name, later in (("with", future), ("without", [])):
        events = known + [(user, time, "x") for user, time in later]
        prepare(plan, events=make_events(events), samples=make_samples(samples), out=root / name)
    first_samples = (0, 3)
    seen = [visible_items(root / name) for name in ("with", "without")]
    for sample in first_samples:
        # ids may be others, because later events count in the vocabulary: compare what they mean
        assert len(seen[0][sample]) == len(seen[1][sample])
    values = [
        {number: value for value, number in vocabulary(root / name, "item").items()}
        for name in ("with", "without")
    ]
    for sample in first_samples:
        assert [values[0][i] for i in seen[0][sample]] == [values[1][i] for i in seen[1][sample]]


def test_an_event_of_the_same_moment_would_tell_the_label_and_is_not_seen(tmp_path: Path) -> None:
    # clicks are logged as events at once: who sees them knows the label
    draw = np.random.default_rng(4)
    shown = [("abcde"[i % 5], i // 5, "xyz"[draw.integers(3)]) for i in range(400)]
    samples = make_samples(shown)
    clicked = draw.integers(0, 2, 400)
    index = samples.column_names.index("click")
    samples = samples.set_column(index, "click", pa.array(clicked))
    events = make_events([row for row, click in zip(shown, clicked, strict=True) if click])
    prepare(PLAN, events=events, samples=samples, out=tmp_path / "out")
    rows, log = read_all(tmp_path / "out", read_schema(tmp_path / "out"))

    def last_is_own(row: dict[str, Any], end: int) -> bool:
        seen = log[row["user"]][:end]
        return bool(seen) and seen[-1]["time"] == row["time"]

    leaking = [last_is_own(row, row["history_end"] + 1) for row in rows]
    assert leaking == [row["click"] == 1 for row in rows]
    assert not any(last_is_own(row, row["history_end"]) for row in rows)


def test_prepare_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    prepare(PLAN, events=EVENTS, samples=SAMPLES, out=tmp_path / "first")
    generator = np.random.default_rng(0)
    events = EVENTS.take(pa.array(generator.permutation(EVENTS.num_rows)))
    samples = SAMPLES.take(pa.array(generator.permutation(SAMPLES.num_rows)))
    prepare(PLAN, events=events, samples=samples, out=tmp_path / "second")
    for path in sorted((tmp_path / "first").rglob("*.parquet")):
        other = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert pq.read_table(path, partitioning=None) == pq.read_table(other, partitioning=None)


def test_prepare_keeps_requests_weights_order_and_min_count(tmp_path: Path) -> None:
    plan = dataclasses.replace(
        PLAN,
        group="request",
        split=TimeSplit(valid_fraction=0.0, test_fraction=0.2),
        min_count={"item": 2},
    )
    samples = SAMPLES.append_column("request", pa.array(["r", "r", "r", "q", "q"]))
    samples = samples.append_column("weight", pa.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    events = make_events([("a", 1, "x"), ("a", 1, "y"), ("b", 2, "x")])
    events = events.append_column("order", pa.array([2, 1, 0]))
    schema = prepare(plan, events=events, samples=samples, out=tmp_path / "out")
    rows, log = read_all(tmp_path / "out", schema)
    rows.sort(key=lambda row: row["sample_id"])
    # requests of two users are never one
    assert [row["request"] for row in rows] == [0, 0, 2, 2, 4]
    assert [row["weight"] for row in rows] == [1.0, 2.0, 4.0, 5.0, 3.0]
    # by falling count, then by value: x 4 times, y twice; w and new are rare
    assert vocabulary(tmp_path / "out", "item") == {"x": 1, "y": 2}
    assert [event["item_id"] for event in log[1]] == [2, 1]


def test_prepare_reads_parquet_files(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    pq.write_table(SAMPLES.slice(0, 2), folder / "a.parquet")
    pq.write_table(SAMPLES.slice(2), folder / "b.parquet")
    pq.write_table(EVENTS, tmp_path / "events.parquet")
    from_files = prepare(
        PLAN, events=tmp_path / "events.parquet", samples=folder, out=tmp_path / "out"
    )
    assert from_files == prepare(PLAN, events=EVENTS, samples=SAMPLES, out=tmp_path / "other")


def test_nulls_are_what_the_plan_says(tmp_path: Path) -> None:
    columns = SAMPLES.to_pylist()
    columns[0]["price"], columns[1]["price"] = None, float("nan")
    columns[0]["item_id"], columns[1]["tags"] = None, None
    samples = pa.Table.from_pylist(columns, SAMPLES.schema)
    plan = dataclasses.replace(PLAN, nulls={"price": -1.0, "item_id": "own"})
    prepare(plan, events=EVENTS, samples=samples, out=tmp_path / "out")
    rows = sorted(read_all(tmp_path / "out", PLAN.draft_schema())[0], key=lambda r: r["sample_id"])
    assert [row["price"] for row in rows] == [-1.0, -1.0, 3.0, 4.0, 2.0]
    assert rows[0]["item_id"] == vocabulary(tmp_path / "out", "item")["null"]
    assert rows[1]["tags"] == []
    raw = json.loads((tmp_path / "out" / "stats.json").read_text())["raw"]
    nulls = {name: count for name, count in raw.items() if name.startswith("nulls_in")}
    assert nulls == {
        "nulls_in_samples.item_id": 1,
        "nulls_in_samples.tags": 1,
        "nulls_in_samples.price": 2,
    }
    strict = dataclasses.replace(PLAN, nulls={"price": -1.0, "item_id": "error"})
    with pytest.raises(DataError, match=r"column 'item_id', row 0 is null .*nulls are errors in"):
        prepare(strict, events=EVENTS, samples=samples, out=tmp_path / "strict")


def test_hashed_tables_need_no_vocabulary(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, domain=None, hashed={"item": None, "tag": 5})
    schema = prepare(plan, events=EVENTS, samples=SAMPLES, out=tmp_path / "out")
    assert [table.num_embeddings for table in schema.tables] == [3, None, 5]
    assert not (tmp_path / "out" / "vocabulary" / "item.parquet").exists()
    samples, events = read_all(tmp_path / "out", schema)

    def number(value: str) -> int:
        digest = hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()
        return int(digest[:15], 16)

    rows = sorted(samples, key=lambda row: row["sample_id"])
    assert [row["item_id"] for row in rows] == [1 + number(v) for v in ("x", "y", "x", "new", "w")]
    assert rows[0]["tags"] == [1 + number(value) % 4 for value in ("x", "all")]
    assert sorted(row["item_id"] for row in events[1]) == sorted(1 + number(v) for v in "xyz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hashed": {"itm": 5}}, "hashed names the unknown table 'itm'"),
        ({"hashed": {"tag": 1}}, r"hashed.tag \(1\) must be at least 2"),
        ({"hashed": {"tag": 9}, "min_count": {"tag": 2}}, "hashed, so it cannot have a min_count"),
        ({"hashed": {"item": 9}}, "domain's table 'item' cannot be hashed"),
        ({"nulls": {"prise": 0.0}}, "nulls names the unknown field 'prise'"),
        ({"nulls": {"price": "own"}}, "nulls.price is 'own', must be a number"),
        ({"nulls": {"item_id": "zero"}}, "nulls.item_id is 'zero', must be one of"),
        ({"nulls": {"tags": "own"}}, "nulls.tags: a list has no id of its own"),
    ],
)
def test_contradictions_of_a_plan_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PLAN, **change)


def test_prepare_without_behaviors(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, behaviors=())
    schema = prepare(plan, events=None, samples=SAMPLES, out=tmp_path / "out")
    rows, log = read_all(tmp_path / "out", schema)
    assert [row["history_end"] for row in rows] == [0] * 5
    assert log == {}
    with pytest.raises(DataError, match="events: there are none, but the plan has behaviors"):
        prepare(PLAN, events=None, samples=SAMPLES, out=tmp_path / "other")


def test_prepare_replaces_only_its_own_output(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(PLAN, events=EVENTS, samples=SAMPLES, out=out)
    prepare(PLAN, events=EVENTS, samples=SAMPLES.slice(0, 5), out=out)
    other = dataclasses.replace(PLAN, num_parts=2)
    with pytest.raises(ValueError, match="output of another preparation; to replace it, delete"):
        prepare(other, events=EVENTS, samples=SAMPLES, out=out)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="something that is not a prepared data set"):
        prepare(PLAN, events=EVENTS, samples=SAMPLES, out=foreign)
    assert (foreign / "thesis.txt").read_text() == "years of work"


def test_prepare_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    bad = SAMPLES.set_column(SAMPLES.column_names.index("click"), "click", pa.array([2] * 5))
    with pytest.raises(DataError):
        prepare(PLAN, events=EVENTS, samples=bad, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match=r"file/out cannot be written .*; set out="),
        staged_output(tmp_path / "file" / "out", "digest"),
    ):
        pass


def test_last_split_sends_ties_along(tmp_path: Path) -> None:
    rows = [("a", t, "x") for t in (1, 2, 3, 4, 4, 5)] + [("b", 1, "x"), ("b", 2, "x")]
    plan = dataclasses.replace(PLAN, split=LastSplit(valid_samples=2, test_samples=2))
    schema = prepare(plan, events=EVENTS, samples=make_samples(rows), out=tmp_path / "out")
    found, _ = read_all(tmp_path / "out", schema)
    split_of = [row["split"] for row in sorted(found, key=lambda row: row["sample_id"])]
    # the second last sample of "a" shares its moment with the one before; "b" has too few to hold
    # any out
    assert split_of == ["train"] * 2 + ["valid"] + ["test"] * 3 + ["train"] * 2


def test_a_split_without_rows_is_an_error(tmp_path: Path) -> None:
    samples = make_samples([("a", 1, "x"), ("a", 1, "y"), ("b", 1, "x")])
    with pytest.raises(DataError, match="the valid split has no rows"):
        prepare(PLAN, events=EVENTS, samples=samples, out=tmp_path / "out")
