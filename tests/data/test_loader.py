import threading
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ranker_data.batch import RankingBatch
from ranker_data.layout import behaviors_path, samples_path
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.reader import DataError
from ranker_data.schema import Schema
from ranker_data.shard import read_shard


def build(
    root: Path,
    schema: Schema,
    *,
    split: str = "train",
    batch_size: int = 32,
    samples_per_user: int = 1,
    num_streams: int | None = 4,
    max_length: int = 10,
    cache_dir: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> RankingLoader:
    return RankingLoader(
        root=root,
        schema=schema,
        split=split,
        options=LoaderOptions(
            batch_size=batch_size,
            max_length=max_length,
            num_streams=num_streams,
            samples_per_user=samples_per_user,
            cache_dir=cache_dir,
        ),
        seed=7,
        shuffle=split == "train",
        rank=rank,
        world_size=world_size,
        pin_memory=pin_memory,
    )


def consumed(loader: RankingLoader, epoch: int = 0, first_step: int = 0) -> list[list[int]]:
    return [sorted(b.sample_id.tolist()) for b in loader.batches(epoch, first_step)]


def flatten(steps: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(steps))


def raw_rows(root: Path, split: str) -> dict[int, dict[str, Any]]:
    rows = {}
    for path in sorted((root / "samples" / split).iterdir()):
        rows.update({row["sample_id"]: row for row in pq.read_table(path).to_pylist()})
    return rows


def raw_events(root: Path) -> dict[int, list[dict[str, Any]]]:
    events: dict[int, list[dict[str, Any]]] = {}
    for path in sorted((root / "behaviors").iterdir()):
        for row in pq.read_table(path).to_pylist():
            events.setdefault(row["user"], []).append(row)
    return events


def key_values(batch: RankingBatch, key: str) -> torch.Tensor:
    return batch.ids[key].values()


@pytest.mark.parametrize("samples_per_user", [1, 3])
@pytest.mark.parametrize("num_streams", [1, 2, 4])
def test_batches_hold_what_the_files_say(
    tiny_dataset: Path, tiny_schema: Schema, samples_per_user: int, num_streams: int
) -> None:
    rows, events = raw_rows(tiny_dataset, "train"), raw_events(tiny_dataset)
    loader = build(
        tiny_dataset, tiny_schema, samples_per_user=samples_per_user, num_streams=num_streams
    )
    for batch in loader.batches():
        assert batch.num_candidates == 32
        assert (batch.user_of.diff() >= 0).all()
        # the model relies on it: as many users as candidates are one for each
        assert sorted({*batch.user_of.tolist()}) == [*range(batch.num_users)]
        assert batch.num_users == len(set(batch.user.tolist()))
        tag_ends = batch.bag_lengths["tags"].cumsum(0)
        for c in range(batch.num_candidates):
            row = rows[int(batch.sample_id[c])]
            begin, end = batch.windows[c].tolist()
            expected = [
                event for event in events.get(int(batch.user[c]), []) if event["time"] < row["time"]
            ][-10:]
            for name in ("item_id", "category", "event"):
                found = key_values(batch, f"behavior.{name}")[begin:end].tolist()
                assert found == [event[name] for event in expected]
            dwell = batch.behavior_dense[begin:end, 0].tolist()
            assert dwell == pytest.approx([event["dwell"] for event in expected], rel=1e-6)
            assert batch.behavior_time[begin:end].tolist() == [event["time"] for event in expected]
            assert int(key_values(batch, "item_id")[c]) == row["item_id"]
            assert int(batch.ids["user_id"].values()[batch.user_of[c]]) == row["user_id"]
            bag = int(batch.bag_lengths["tags"][c])
            tags = key_values(batch, "tags")[int(tag_ends[c]) - bag : int(tag_ends[c])]
            assert tags.tolist() == row["tags"]
            assert batch.labels[c].tolist() == [row["click"], row["buy"]]
            assert batch.domain[c] == row["domain"]
            assert float(batch.candidate_dense[c, 0]) == pytest.approx(row["price"], rel=1e-6)
            assert float(batch.user_dense[batch.user_of[c], 0]) == row["age"]


def test_an_event_is_in_a_batch_once_and_only_if_it_is_seen(
    tiny_dataset: Path, tiny_schema: Schema
) -> None:
    loader = build(tiny_dataset, tiny_schema, batch_size=64, samples_per_user=3, max_length=4)
    for batch in loader.batches():
        seen = {row for begin, end in batch.windows.tolist() for row in range(begin, end)}
        assert seen == set(range(batch.num_behaviors))
        lengths = batch.ids["behavior.item_id"].lengths()
        user_of_row = torch.repeat_interleave(torch.arange(batch.num_users), lengths)
        for (begin, end), user in zip(batch.windows.tolist(), batch.user_of.tolist(), strict=True):
            assert (user_of_row[begin:end] == user).all()


def test_training_drops_less_than_a_batch_and_repeats_nothing(
    tiny_dataset: Path, tiny_schema: Schema
) -> None:
    loader = build(tiny_dataset, tiny_schema)
    ids = flatten(consumed(loader))
    assert len(ids) == len(set(ids)) == loader.num_steps * 32
    assert loader.plan.num_dropped_rows == len(raw_rows(tiny_dataset, "train")) - len(ids) < 32
    assert consumed(loader, epoch=1) != consumed(loader, epoch=0)


def test_evaluation_visits_each_row_once(tiny_dataset: Path, tiny_schema: Schema) -> None:
    for world_size in (1, 2, 4):
        ids: list[int] = []
        for rank in range(world_size):
            loader = build(
                tiny_dataset, tiny_schema, split="test", rank=rank, world_size=world_size
            )
            ids += flatten(consumed(loader))
        assert sorted(i for i in ids if i >= 0) == sorted(raw_rows(tiny_dataset, "test"))


def test_global_batches_do_not_depend_on_the_number_of_ranks(
    tiny_dataset: Path, tiny_schema: Schema
) -> None:
    alone = consumed(build(tiny_dataset, tiny_schema, samples_per_user=2))
    for world_size in (2, 4):
        ranks = [
            consumed(
                build(tiny_dataset, tiny_schema, samples_per_user=2, rank=r, world_size=world_size)
            )
            for r in range(world_size)
        ]
        assert [sorted(flatten(step)) for step in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("num_streams", [1, 2, 4])
def test_resuming_at_any_step_gives_the_rest(
    tiny_dataset: Path, tiny_schema: Schema, num_streams: int
) -> None:
    whole = consumed(build(tiny_dataset, tiny_schema, num_streams=num_streams), epoch=2)
    for step in range(len(whole) + 1):
        loader = build(tiny_dataset, tiny_schema, num_streams=num_streams)
        assert consumed(loader, epoch=2, first_step=step) == whole[step:]


def test_a_rank_without_rows_gets_a_row_of_weight_zero(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    empty = samples_path(root, "test", 1)
    pq.write_table(pq.read_table(empty).slice(0, 0), empty)
    loader = build(root, tiny_schema, split="test", rank=1, world_size=4)
    for batch in loader.batches():
        assert batch.sample_id.tolist() == [-1]
        assert batch.weights.tolist() == [0.0]


def rewrite(path: Path, column: str, row: int, value: object) -> None:
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    index = table.schema.get_field_index(column)
    field = table.schema.field(column).with_nullable(True)
    column_values = pa.array(values, type=field.type)
    pq.write_table(table.set_column(index, field, column_values), path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("click", float("nan"), r"column 'click', row 2 is NaN"),
        ("click", 2.0, r"column 'click', value 2 is 2.0 .* a label must be 0, 1 or null"),
        ("item_id", 40, r"value 2 is 40 .* ids of table 'item_id' must be in \[0, 40\)"),
        ("item_id", -1, r"value 2 is -1"),
        ("item_id", None, r"column 'item_id', row 2 is null"),
        ("price", float("inf"), r"column 'price', value 2 is inf .* must be finite"),
        ("weight", -1.0, r"column 'weight', value 2 is -1"),
        ("history_end", 999, r"row 2: history_end is 999, but the user has"),
        ("time", 10**9, r"row 3 is out of order"),
    ],
)
def test_bad_values_are_named(
    make_tiny_dataset: Callable[..., Path],
    tiny_schema: Schema,
    tmp_path: Path,
    column: str,
    value: object,
    message: str,
) -> None:
    root = make_tiny_dataset(tmp_path / "data", users_per_part=3)
    rewrite(samples_path(root, "train", 2), column, 2, value)
    with pytest.raises(DataError, match=message) as error:
        build(root, tiny_schema, batch_size=8).check()
    assert "part-00002.parquet" in str(error.value)


def test_a_history_that_sees_the_future_is_refused(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    rows = pq.read_table(samples_path(root, "train", 0)).to_pylist()
    events = raw_events(root)
    row = next(i for i, r in enumerate(rows) if r["history_end"] < len(events.get(r["user"], [])))
    rewrite(samples_path(root, "train", 0), "history_end", row, rows[row]["history_end"] + 1)
    with pytest.raises(DataError, match=rf"row {row} .* sees an event at time"):
        build(root, tiny_schema).check()


def test_a_label_may_not_miss_what_it_requires(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    path = samples_path(root, "train", 0)
    row = pq.read_table(path)["click"].to_pylist().index(0.0)
    rewrite(path, "buy", row, 1.0)
    with pytest.raises(DataError, match=r"column 'buy'.*only where 'click' is 1"):
        build(root, tiny_schema).check()


def test_all_bad_files_are_listed_at_once(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    samples_path(root, "train", 1).write_bytes(b"")
    table = pq.read_table(samples_path(root, "train", 2))
    names = [name.replace("item_id", "itemid") for name in table.column_names]
    pq.write_table(table.rename_columns(names), samples_path(root, "train", 2))
    path = samples_path(root, "train", 3)
    table = pq.read_table(path)
    index = table.schema.get_field_index("category")
    texts = table["category"].cast("string")
    pq.write_table(table.set_column(index, "category", texts), path)
    with pytest.raises(DataError) as error:
        build(root, tiny_schema)
    text = str(error.value)
    assert "part-00001.parquet is not a readable Parquet file" in text
    assert "column 'item_id' is missing; did you mean 'itemid'?" in text
    assert "column 'category' has type string, must be int64" in text


def test_a_flipped_bit_in_a_page_is_noticed(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    path = behaviors_path(root, 0)
    column = pq.ParquetFile(path).metadata.row_group(0).column(2)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"part-00000.parquet cannot be read"):
        build(root, tiny_schema).check()


def test_a_missing_part_is_named(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    samples_path(root, "train", 1).unlink()
    with pytest.raises(DataError, match=r"part-00001.parquet is missing"):
        build(root, tiny_schema)


def test_too_few_rows_for_one_batch(tiny_dataset: Path, tiny_schema: Schema) -> None:
    with pytest.raises(DataError, match=r"less than one batch of 100000; lower loader.batch_size"):
        build(tiny_dataset, tiny_schema, batch_size=100_000)


def test_pinned_batches_come_from_a_thread(
    tiny_dataset: Path, tiny_schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def pin(batch: RankingBatch) -> RankingBatch:
        threads.add(threading.current_thread().name)
        return batch

    # pinning itself needs a GPU
    monkeypatch.setattr(RankingBatch, "pin_memory", pin)
    loader = build(tiny_dataset, tiny_schema, pin_memory=True)
    assert consumed(loader) == consumed(build(tiny_dataset, tiny_schema))
    assert threads == {"ranker-loader"}


def test_epochs_that_are_read_side_by_side_do_not_mix(
    tiny_dataset: Path, tiny_schema: Schema
) -> None:
    # each iteration builds ahead in a thread of its own, from one source
    loader = build(tiny_dataset, tiny_schema)
    alone = [consumed(loader, epoch) for epoch in (0, 1)]
    together = zip(loader.batches(0), loader.batches(1), strict=True)
    mixed = [[sorted(batch.sample_id.tolist()) for batch in pair] for pair in together]
    assert [list(epoch) for epoch in zip(*mixed, strict=True)] == alone
    assert alone[0] != alone[1]


def test_the_number_of_streams_follows_the_parts_if_it_is_not_given(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root = make_tiny_dataset(tmp_path / "data", num_parts=3)
    loader = build(root, tiny_schema, num_streams=None)
    assert loader.plan.num_streams == 2
    with pytest.raises(ValueError, match=r"num_streams \(4\) must not exceed .* parts \(3\)"):
        build(root, tiny_schema, num_streams=4)
    with pytest.raises(ValueError, match=r"\(2\) must be a multiple of the number of ranks \(4\)"):
        build(root, tiny_schema, num_streams=None, world_size=4)


def test_memory_holds_the_generations_of_a_batch_and_reads_each_part_once(
    make_tiny_dataset: Callable[..., Path],
    tiny_schema: Schema,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = make_tiny_dataset(tmp_path / "data", num_parts=8, users_per_part=6)
    read: list[int] = []

    def counted(*args: Any) -> Any:
        read.append(args[3])
        return read_shard(*args)

    monkeypatch.setattr("ranker_data.store.read_shard", counted)
    monkeypatch.setattr("ranker_data.loader._BLOCK_ROWS", 1)
    # 4 generations of 2 parts each; their borders lie within batches
    loader = build(root, tiny_schema, num_streams=2, batch_size=32)
    assert loader.num_steps > 4
    list(loader.batches(epoch=1))
    assert sorted(read) == list(range(8))
    # a batch may also need most of them at once, and keeps those that are there
    read.clear()
    loader = build(root, tiny_schema, num_streams=2, batch_size=150)
    list(loader.batches(epoch=1))
    assert len(read) == len(set(read)) >= 6


def test_parts_of_unequal_sizes_are_read_once_too(
    make_tiny_dataset: Callable[..., Path],
    tiny_schema: Schema,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = make_tiny_dataset(tmp_path / "data", num_parts=8, users_per_part=6)
    expected = {}
    # one stream is through with its large part when the other has nearly all of its own before it
    for part in range(8):
        path = samples_path(root, "train", part)
        table = pq.read_table(path)
        kept = table if part in (0, 7) else table.slice(0, 4)
        pq.write_table(kept, path)
        expected[part] = kept.num_rows
    read: list[int] = []

    def counted(*args: Any) -> Any:
        read.append(args[3])
        return read_shard(*args)

    monkeypatch.setattr("ranker_data.store.read_shard", counted)
    monkeypatch.setattr("ranker_data.loader._BLOCK_ROWS", 1)
    for epoch in range(4):
        loader = build(root, tiny_schema, num_streams=2, batch_size=2)
        read.clear()
        steps = consumed(loader, epoch)
        assert sorted(read) == list(range(8))
        assert len(set(flatten(steps))) == len(flatten(steps)) == sum(expected.values()) // 2 * 2


def test_a_history_that_shrinks_is_refused(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    rows = pq.read_table(samples_path(root, "train", 0)).to_pylist()
    row = next(
        i
        for i in range(1, len(rows))
        if rows[i]["user"] == rows[i - 1]["user"] and rows[i - 1]["history_end"] > 0
    )
    rewrite(samples_path(root, "train", 0), "history_end", row, 0)
    with pytest.raises(DataError, match=rf"row {row}: history_end is 0, but \d+ for the user's"):
        build(root, tiny_schema).check()


def test_a_part_that_is_replaced_while_a_run_reads_is_refused(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    for cache_dir in (None, str(tmp_path / "cache")):
        path = samples_path(root, "train", 1)
        loader = build(root, tiny_schema, cache_dir=cache_dir)
        pq.write_table(pq.read_table(path).slice(1), path)
        with pytest.raises(DataError, match=r"part-00001.parquet had \d+ rows when this process"):
            loader.check()


def test_a_batch_moves_as_a_whole(tiny_dataset: Path, tiny_schema: Schema) -> None:
    batch = next(build(tiny_dataset, tiny_schema).batches())
    moved = batch.to(torch.device("cpu"))
    np.testing.assert_array_equal(moved.ids.values(), batch.ids.values())
    assert moved.bag_lengths.keys() == {"tags"}
