import dataclasses
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.cache import CacheError
from ranker_data.gather import NumpyGather
from ranker_data.layout import samples_path
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.reader import DataError
from ranker_data.schema import Schema

# packs some parts in a process of its own
PACK = """
import sys
from pathlib import Path
from ranker_data.cache import CachedStore
from ranker_data.layout import behaviors_arrow_schema, samples_arrow_schema
from ranker_data.reader import check_footers, list_parts
from ranker_data.schema import read_schema

root, cache, parts = Path(sys.argv[1]), Path(sys.argv[2]), tuple(map(int, sys.argv[3:]))
schema = read_schema(root)
CachedStore(
    root=root, schema=schema, split="train", cache_dir=cache,
    samples=check_footers(list_parts(root / "samples" / "train"), samples_arrow_schema(schema)),
    events=check_footers(list_parts(root / "behaviors"), behaviors_arrow_schema(schema)),
).require([parts])
"""


def build(
    root: Path, schema: Schema, cache: Path | None, *, split: str = "train", **where: int
) -> RankingLoader:
    return RankingLoader(
        root=root,
        schema=schema,
        split=split,
        options=LoaderOptions(
            batch_size=32, max_length=10, cache_dir=None if cache is None else str(cache)
        ),
        seed=7,
        shuffle=split == "train",
        rank=where.get("rank", 0),
        world_size=where.get("world_size", 1),
    )


def contents(loader: RankingLoader, epoch: int = 1) -> list[list[list[float]]]:
    """Everything that is in the batches, as lists."""
    found = []
    for batch in loader.batches(epoch):
        tensors = [batch.ids.values(), batch.ids.lengths(), *batch.bag_lengths.values()]
        tensors += [batch.windows, batch.user_of, batch.sample_id, batch.time, batch.behavior_time]
        tensors += [batch.labels, batch.label_mask, batch.user_dense, batch.behavior_dense]
        tensors += [batch.candidate_dense, batch.truths.nan_to_num(-1), batch.domain, batch.weights]
        found.append([tensor.flatten().tolist() for tensor in tensors])
    return found


def folders(cache: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in cache.glob(f"*/{pattern}"))


def test_batches_from_the_cache_equal_those_from_parquet(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        fresh = contents(build(tiny_dataset, tiny_schema, None, split=split))
        assert contents(build(tiny_dataset, tiny_schema, tmp_path, split=split)) == fresh
        # and from a cache that is there
        assert contents(build(tiny_dataset, tiny_schema, tmp_path, split=split)) == fresh


@pytest.mark.parametrize("split", ["train", "test"])
def test_batches_are_the_same_without_a_compiler(
    tiny_dataset: Path,
    tiny_schema: Schema,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    split: str,
) -> None:
    expected = contents(build(tiny_dataset, tiny_schema, tmp_path, split=split))
    monkeypatch.setattr("ranker_data.loader.best_gather", NumpyGather)
    for cache in (None, tmp_path):
        assert contents(build(tiny_dataset, tiny_schema, cache, split=split)) == expected


def test_a_cache_that_is_there_is_not_read_from_parquet_again(
    make_tiny_dataset: Callable[..., Path],
    tiny_schema: Schema,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    build(root, tiny_schema, tmp_path / "cache").check()

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("Parquet was read")

    monkeypatch.setattr("ranker_data.cache.read_shard", refuse)
    loader = build(root, tiny_schema, tmp_path / "cache")
    loader.check()
    assert sum(batch.num_candidates for batch in loader.batches()) == loader.num_steps * 32


def test_a_changed_file_gives_a_new_cache_and_the_old_one_goes(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root, cache = make_tiny_dataset(tmp_path / "data"), tmp_path / "cache"
    loader = build(root, tiny_schema, cache)
    first = contents(loader)
    old = folders(cache, "train-*")
    make_tiny_dataset(root, seed=1)
    in_use = build(root, tiny_schema, cache)
    assert contents(in_use) == contents(build(root, tiny_schema, None)) != first
    # the first loader still uses the old files
    assert set(folders(cache, "train-*")) > set(old)
    del loader, in_use
    make_tiny_dataset(root, seed=2)
    build(root, tiny_schema, cache)
    assert not set(folders(cache, "train-*")) & set(old)
    assert len(folders(cache, "train-*")) == len(folders(cache, "behaviors-*")) == 1


def test_a_schema_with_other_fields_has_a_cache_of_its_own(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path
) -> None:
    build(tiny_dataset, tiny_schema, tmp_path).check()
    less = tiny_schema.without(["price"])
    loader = build(tiny_dataset, less, tmp_path)
    assert contents(loader) == contents(build(tiny_dataset, less, None))
    assert len(folders(tmp_path, "train-*")) == 2


def test_packing_that_was_cut_short_is_done_again(
    make_tiny_dataset: Callable[..., Path],
    tiny_schema: Schema,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    expected = contents(build(root, tiny_schema, None))

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ranker_data.cache.pack_samples", die)
        with pytest.raises(KeyboardInterrupt):
            build(root, tiny_schema, tmp_path / "cache").check()
    assert folders(tmp_path / "cache", "train-*/*.done") == []
    assert contents(build(root, tiny_schema, tmp_path / "cache")) == expected


def test_ranks_and_jobs_may_pack_at_once(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root, cache = make_tiny_dataset(tmp_path / "data"), tmp_path / "cache"
    parts = [("0", "2"), ("1", "3"), ("0", "1", "2", "3")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", PACK, str(root), str(cache), *p], env=environment)
        for p in parts
    ]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert len(folders(cache, "train-*/*.done")) == 4
    assert contents(build(root, tiny_schema, cache)) == contents(build(root, tiny_schema, None))


def test_bad_values_are_found_when_they_are_packed(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    path = samples_path(root, "train", 2)
    table = pq.read_table(path)
    bad = pa.array([2.0] * table.num_rows, pa.float32())
    pq.write_table(table.set_column(table.schema.get_field_index("click"), "click", bad), path)
    with pytest.raises(DataError, match=r"part-00002\.parquet.*a label must be 0, 1"):
        build(root, tiny_schema, tmp_path / "cache").check()


def test_a_full_disk_is_said_before_anything_is_packed(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    message = r"loader\.cache_dir: .* needs \d+\.\d\d GB, but only .* GB are free there; choose"
    with pytest.raises(CacheError, match=message):
        build(tiny_dataset, tiny_schema, tmp_path / "cache")
    # nothing is left that a later run could take for a cache
    assert folders(tmp_path / "cache", "[!.]*") == folders(tmp_path / "cache", ".tmp*") == []


def test_a_folder_that_cannot_be_written_is_named(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CacheError, match=r"cache_dir: .*cache.* cannot be written; choose another"):
        build(tiny_dataset, tiny_schema, tmp_path / "cache")


@pytest.mark.parametrize("name", ["events", "samples", "list:samples:tags"])
def test_a_damaged_part_is_packed_again(
    make_tiny_dataset: Callable[..., Path],
    tiny_schema: Schema,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    root, cache = make_tiny_dataset(tmp_path / "data"), tmp_path / "cache"
    expected = contents(build(root, tiny_schema, cache))
    (path,) = cache.glob(f"*/*/{quote(name, safe='')}")
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 16]))
    loader = build(root, tiny_schema, cache)
    # a start reads nothing
    loader.check()
    assert caplog.records == []
    assert contents(loader) == expected
    (record,) = caplog.records
    assert f"is damaged ({name}); it is packed again from Parquet" in record.getMessage()
    # and it stays mended
    assert contents(build(root, tiny_schema, cache)) == expected
    assert len(caplog.records) == 1


@pytest.mark.parametrize("size", [None, 0, 100, 10**6])
def test_a_file_of_another_size_is_made_again(
    make_tiny_dataset: Callable[..., Path],
    tiny_schema: Schema,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    size: int | None,
) -> None:
    root, cache = make_tiny_dataset(tmp_path / "data"), tmp_path / "cache"
    expected = contents(build(root, tiny_schema, cache))
    (path,) = cache.glob("*/train-*/samples")
    wanted = path.stat().st_size
    if size is None:
        path.unlink()
    else:
        os.truncate(path, size)
    assert contents(build(root, tiny_schema, cache)) == expected
    (record,) = caplog.records
    assert f"samples has {size or 0} bytes, must have {wanted}; all parts" in record.getMessage()


@pytest.mark.parametrize("text", ["", "[]", "{}", "half of"])
def test_a_part_whose_mark_cannot_be_read_is_packed_again(
    make_tiny_dataset: Callable[..., Path], tiny_schema: Schema, tmp_path: Path, text: str
) -> None:
    root, cache = make_tiny_dataset(tmp_path / "data"), tmp_path / "cache"
    expected = contents(build(root, tiny_schema, cache))
    (marker,) = cache.glob("*/train-*/part-00002.done")
    complete = marker.read_text()
    marker.write_text(text)
    loader = build(root, tiny_schema, cache)
    loader.check()
    assert marker.read_text() == complete
    assert contents(loader) == expected


def test_a_disk_that_does_not_keep_what_is_written_is_named(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = map(str, range(10**6))
    monkeypatch.setattr("ranker_data.cache_folder.checksum", lambda values: next(sums))
    with pytest.raises(CacheError, match="damaged again; examine the disk"):
        next(build(tiny_dataset, tiny_schema, tmp_path).batches())


def test_ids_that_were_moved_into_their_table_are_told(
    make_tiny_dataset: Callable[..., Path],
    tiny_schema: Schema,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = make_tiny_dataset(tmp_path / "data")
    tables = tuple(
        dataclasses.replace(t, num_embeddings=5, out_of_range="oov") if t.name == "item_id" else t
        for t in tiny_schema.tables
    )
    schema = dataclasses.replace(tiny_schema, tables=tables)
    # the events of all parts, and the samples of the split
    moved = sum(
        int((pq.read_table(path)["item_id"].to_numpy() >= 5).sum())
        for folder in ("behaviors", "samples/train")
        for path in (root / folder).iterdir()
    )
    assert moved
    # in memory; packed now; and packed before
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        caplog.clear()
        build(root, schema, cache).check()
        (record,) = caplog.records
        message = record.getMessage()
        assert message.startswith(f"split 'train', rank 0: {moved} ids of field 'item_id' are out")
