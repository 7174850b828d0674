import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ranker_data.layout import samples_path
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.reader import DataError
from ranker_data.schema import Schema
from ranker_data.workers import DataWorkerError


def build(
    root: Path, schema: Schema, cache: Path, workers: int, timeout: float = 60.0
) -> RankingLoader:
    return RankingLoader(
        root=root,
        schema=schema,
        split="train",
        options=LoaderOptions(
            batch_size=16,
            max_length=10,
            cache_dir=str(cache),
            num_workers=workers,
            prefetch=2,
            worker_timeout_seconds=timeout,
        ),
        seed=7,
        shuffle=True,
        rank=0,
        world_size=1,
    )


def children() -> set[int]:
    found = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if f"PPid:\t{os.getpid()}\n" in text and b"ranker_data.worker" in command:
            found.add(int(status.parent.name))
    return found


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() == before


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_batches(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path, workers: int
) -> None:
    alone = list(build(tiny_dataset, tiny_schema, tmp_path, 0).batches(epoch=1, first_step=3))
    found = list(build(tiny_dataset, tiny_schema, tmp_path, workers).batches(1, 3))
    assert len(found) == len(alone)
    for ours, theirs in zip(found, alone, strict=True):
        assert torch.equal(ours.ids.values(), theirs.ids.values())
        assert torch.equal(ours.ids.lengths(), theirs.ids.lengths())
        assert torch.equal(ours.windows, theirs.windows)
        assert torch.equal(ours.sample_id, theirs.sample_id)
        assert torch.equal(ours.behavior_dense, theirs.behavior_dense)
        assert torch.equal(ours.bag_lengths["tags"], theirs.bag_lengths["tags"])


def test_batches_that_are_kept_are_not_written_over(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path
) -> None:
    loader = build(tiny_dataset, tiny_schema, tmp_path, 1)
    kept, copies = [], []
    for batch in loader.batches():
        kept.append(batch)
        copies.append(batch.ids.values().clone())
    for batch, copy in zip(kept, copies, strict=True):
        assert torch.equal(batch.ids.values(), copy)


def test_leaving_early_ends_the_workers(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path
) -> None:
    batches = build(tiny_dataset, tiny_schema, tmp_path, 2).batches()
    next(batches)
    assert len(children()) == 2
    batches.close()  # type: ignore[attr-defined]
    assert children() == set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_is_one_clear_error(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path, number: signal.Signals
) -> None:
    batches = build(tiny_dataset, tiny_schema, tmp_path, 2).batches()
    next(batches)
    victim = min(children())
    os.kill(victim, number)
    message = (
        rf"data worker \d of 2 of split 'train' on rank 0 \(pid {victim}\) was killed by "
        rf"{number.name} while it built steps \d+ to \d+ of epoch 0"
    )
    begin = time.monotonic()
    with pytest.raises(DataWorkerError, match=message) as error:
        list(batches)
    assert time.monotonic() - begin < 10
    assert ("out of memory: lower loader.num_workers" in str(error.value)) == (number == 9)


def test_a_worker_that_hangs_is_named_after_the_timeout(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path
) -> None:
    stalled = build(tiny_dataset, tiny_schema, tmp_path, 1, timeout=0.5).batches()
    stopper = threading.Thread(target=stop_when_there)
    stopper.start()
    with pytest.raises(DataWorkerError, match=r"has not delivered steps 0 to 0 .* for 0\.5 s"):
        list(stalled)
    stopper.join()


def stop_when_there() -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for worker in children():
            os.kill(worker, signal.SIGSTOP)
            return
        time.sleep(0.001)


def test_bad_data_that_a_worker_finds_reads_like_bad_data(
    tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_dataset, root)
    loader = build(root, tiny_schema, tmp_path / "cache", 1)
    # nobody called check(), so the workers pack the parts
    path = samples_path(root, "train", 1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"part-00001\.parquet cannot be read"):
        list(loader.batches())


def test_workers_need_a_cache() -> None:
    with pytest.raises(ValueError, match=r"num_workers is 2 and cache_dir is null.*num_workers=0"):
        LoaderOptions(batch_size=8, max_length=5, num_workers=2)


def test_a_worker_imports_no_torch() -> None:
    code = "import sys, ranker_data.worker; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_workers_end_when_their_parent_is_killed(tiny_dataset: Path, tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.schema import read_schema

root = Path({str(tiny_dataset)!r})
loader = RankingLoader(
    root=root, schema=read_schema(root), split="train", seed=0, shuffle=True,
    options=LoaderOptions(batch_size=16, max_length=5, cache_dir={str(tmp_path)!r}, num_workers=2),
    rank=0, world_size=1,
)
batches = loader.batches()
next(batches)
print(*[c.split()[0] for c in os.popen(f"ps -o pid= --ppid {{os.getpid()}}")], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(done.stdout.split()) >= 2
    deadline = time.monotonic() + 10
    for pid in map(int, done.stdout.split()):
        while (Path("/proc") / str(pid)).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not (Path("/proc") / str(pid)).exists()
