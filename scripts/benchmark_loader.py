"""What a loader reads in a second of CPU time with one thread; contestants in turn, in one run.

Workload DIN-C1 of scripts/benchmark_din.py: 200,000 rows, histories of up to 50 (mean 20.7) items
and their categories, each row a user of its own, so that no history is shared and none is read
twice. Then the same with histories of exactly 50. Then users with up to 2,000 events and 40 samples
each, of which a sample sees the latest 1,000.

    decode      pyarrow reads the Parquet file that has the history in every row; no batches
    cache       shuffled RankingBatches from the packed cache
    parquet     the same without a cache, reading and checking the event log included
    copies      shuffled RankingBatches if every sample has a copy of its history
    users whole from the cache, with a user's samples kept together (samples_per_user)
    padded      torch's DataLoader over padded tensors in memory
    peers       the loaders of deepctr-torch and torch-rechub, over arrays in memory

    python scripts/benchmark_loader.py --peer-python <python of an environment with the peers>
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.schema import read_schema

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
workload = importlib.import_module("benchmark_din")

PEERS = ("deepctr-torch", "torch-rechub")
WORKLOADS = ("short", "fifty", "long")
NUM_USERS, NUM_EVENTS, NUM_SAMPLES, LONG = 500, 2_000, 40, 1_000

# reads everything once and returns the number of rows
Contestant = Callable[[], int]


def write_copies(arrays: dict[str, Any], path: Path) -> None:
    """Writes one file with the history in every row: what frameworks without an event log read."""
    offsets = np.concatenate([[0], np.cumsum(arrays["length"])]).astype(np.int32)
    columns: dict[str, Any] = {
        name: arrays[name].astype(np.int32) for name in ("user", "item", "category")
    }
    for name in ("hist_item", "hist_category"):
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(arrays[name].astype(np.int32)))
    columns["label"] = arrays["label"]
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=25_000)


def fixed_length(arrays: dict[str, Any]) -> dict[str, Any]:
    """The workload with histories of exactly 50."""
    generator = np.random.default_rng(7)
    length = np.full_like(arrays["length"], 50)
    chosen = generator.integers(0, len(arrays["hist_item"]), length.sum())
    histories = {name: arrays[name][chosen] for name in ("hist_item", "hist_category")}
    return {**arrays, **histories, "length": length}


def long_arrays() -> tuple[dict[str, Any], dict[str, Any]]:
    """Long histories: as an event log (with the events of each user), and copied to each sample."""
    generator = np.random.default_rng(11)
    items = generator.integers(1, 100_000, NUM_USERS * NUM_EVENTS)
    # a sample comes after at least as many events as it sees
    ends = generator.integers(LONG, NUM_EVENTS + 1, NUM_USERS * NUM_SAMPLES)
    user = np.repeat(np.arange(NUM_USERS), NUM_SAMPLES)
    begins = user * NUM_EVENTS + ends - LONG
    seen = (begins[:, None] + np.arange(LONG)).ravel()
    rows = len(user)
    sample = {
        "user": generator.integers(1, 10_000, rows),
        "item": generator.integers(1, 100_000, rows),
        "category": generator.integers(1, 1_000, rows),
        "label": (generator.random(rows) < 0.2).astype(np.float32),
        "num_items": 100_000,
    }
    copies = {
        **sample,
        "length": np.full(rows, LONG),
        "hist_item": items[seen],
        "hist_category": items[seen] % 999 + 1,
    }
    log = {**sample, "owner": user, "end": ends, "items": items, "categories": items % 999 + 1}
    return log, copies


def write_log(arrays: dict[str, Any], like: Path, root: Path) -> None:
    """Writes an event log whose users have many samples, in 16 parts; `like` gives the schema."""
    from ranker_data.layout import (
        behaviors_arrow_schema,
        behaviors_path,
        samples_arrow_schema,
        samples_path,
    )
    from ranker_data.schema import write_schema

    schema = read_schema(like)
    root.mkdir()
    write_schema(schema, root)
    order = np.lexsort((arrays["end"], arrays["owner"]))
    columns = {
        "sample_id": np.arange(len(order)),
        "user": arrays["owner"][order],
        "time": arrays["end"][order],
        "request": np.arange(len(order)),
        "history_end": arrays["end"][order],
        "user_id": arrays["owner"][order],
        "item": arrays["item"][order],
        "category": arrays["category"][order],
        "click": arrays["label"][order],
        "weight": np.ones(len(order), np.float32),
    }
    events = {
        "user": np.repeat(np.arange(NUM_USERS), NUM_EVENTS),
        "time": np.tile(np.arange(NUM_EVENTS), NUM_USERS),
        "item": arrays["items"],
        "category": arrays["categories"],
    }
    for part, users in enumerate(np.array_split(np.arange(NUM_USERS), 16)):
        for values, path, arrow in (
            (events, behaviors_path(root, part), behaviors_arrow_schema(schema)),
            (columns, samples_path(root, "train", part), samples_arrow_schema(schema)),
        ):
            mask = (values["user"] >= users[0]) & (values["user"] <= users[-1])
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pa.table({name: column[mask] for name, column in values.items()}, schema=arrow)
            pq.write_table(table, path, compression="zstd")


def decode(path: Path) -> Contestant:
    """Reads a Parquet file with one thread."""
    return lambda: pq.read_table(path, use_threads=False).num_rows


def ours(
    root: Path, cache: Path | None, *, batch_size: int, max_length: int, samples_per_user: int = 1
) -> Contestant:
    """An epoch of shuffled batches; without a cache also the reading and checking of the files."""
    epochs = iter(range(10**9))

    def build() -> RankingLoader:
        return RankingLoader(
            root=root,
            schema=read_schema(root),
            split="train",
            options=LoaderOptions(
                batch_size=batch_size,
                max_length=max_length,
                samples_per_user=samples_per_user,
                cache_dir=None if cache is None else str(cache),
            ),
            seed=1,
            shuffle=True,
            rank=0,
            world_size=1,
        )

    loader = build()
    if cache is not None:
        loader.check()

    def epoch() -> int:
        source = loader if cache is not None else build()
        return sum(batch.num_candidates for batch in source.batches(next(epochs)))

    return epoch


def padded(arrays: dict[str, Any]) -> Contestant:
    """An epoch of torch's DataLoader with its default collation."""
    from torch.utils.data import DataLoader, TensorDataset

    mask = np.arange(50) < arrays["length"][:, None]
    columns = [arrays[name] for name in ("user", "item", "category", "length", "label")]
    for name in ("hist_item", "hist_category"):
        history = np.zeros(mask.shape, np.int64)
        history[mask] = arrays[name]
        columns.append(history)
    data = TensorDataset(*map(torch.from_numpy, columns))
    loader = DataLoader(data, batch_size=1024, shuffle=True)
    return lambda: sum(len(batch[0]) for batch in loader)


def run_peer(python: Path, library: str, arrays: Path) -> float:
    """Returns the rows per CPU second of a peer's loader."""
    script = str(ROOT / "scripts" / "benchmark_loader_peer.py")
    done = subprocess.run(
        [str(python), script, library, str(arrays)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return float(result["rows"] / result["cpu_seconds"])


def compare(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Returns million rows per CPU second of every contestant in every round, taken in turn."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, contestant in contestants.items():
            begin = time.process_time()
            rows = contestant()
            speed = rows / (time.process_time() - begin) / 1e6
            # the first round warms up
            if number:
                speeds[name].append(speed)
    return speeds


def report(title: str, speeds: dict[str, list[float]], base: str, facts: dict[str, Any]) -> None:
    """Prints a table: median and best of the rounds, and the median of the ratios to `base`."""
    print(f"\n{title}  {json.dumps(facts)}")
    print(f"{'':24}{'M rows/CPU-s':>14}{'best':>9}{'x ' + base:>16}")
    for name, values in speeds.items():
        ratio = np.median(np.array(values) / np.array(speeds[base]))
        print(f"{name:24}{np.median(values):14.3f}{max(values):9.3f}{ratio:16.2f}")


def disk_bytes(path: Path) -> int:
    """Returns the size of a file, or of the Parquet files below a folder."""
    files = [path] if path.is_file() else [*path.glob("behaviors/*"), *path.glob("samples/train/*")]
    return sum(file.stat().st_size for file in files)


def short_histories(folder: Path, title: str, arrays: dict[str, Any], args: Any) -> None:
    """Histories of up to 50: decoding, our loader, padded tensors, peers."""
    folder.mkdir()
    root, copies, cache = folder / "log", folder / "copies.parquet", folder / "cache"
    workload.write_dataset(arrays, root)
    write_copies(arrays, copies)
    contestants = {
        "decode": decode(copies),
        "cache, batch 1024": ours(root, cache, batch_size=1024, max_length=50),
        "cache, batch 8192": ours(root, cache, batch_size=8192, max_length=50),
        "parquet, batch 1024": ours(root, None, batch_size=1024, max_length=50),
        "padded": padded(arrays),
    }
    speeds = compare(contestants, args.rounds)
    if args.peer_python is not None:
        np.savez(folder / "arrays.npz", **arrays)
        for library in PEERS:
            speeds[library] = [
                run_peer(args.peer_python, library, folder / "arrays.npz") / 1e6
                for _ in range(args.rounds)
            ]
    sizes = {"log_mb": disk_bytes(root) / 1e6, "copies_mb": disk_bytes(copies) / 1e6}
    report(title, speeds, "decode", {name: round(size, 1) for name, size in sizes.items()})


def long_histories(folder: Path, args: Any) -> None:
    """Histories of 1,000, stored once or copied to every sample."""
    folder.mkdir()
    log, copied = long_arrays()
    roots = {"log": folder / "log", "copies": folder / "copies"}
    workload.write_dataset(copied, roots["copies"])
    write_log(log, roots["copies"], roots["log"])
    write_copies(copied, folder / "copies.parquet")
    contestants = {"decode": decode(folder / "copies.parquet")}
    for name, root in roots.items():
        for place, cache in (("cache", folder / "cache"), ("parquet", None)):
            contestants[f"{name} from {place}"] = ours(
                root, cache, batch_size=1024, max_length=LONG
            )
    contestants["log, users whole"] = ours(
        roots["log"],
        folder / "cache",
        batch_size=1024,
        max_length=LONG,
        samples_per_user=NUM_SAMPLES,
    )
    speeds = compare(contestants, args.rounds)
    facts = {
        "log_mb": round(disk_bytes(roots["log"]) / 1e6, 1),
        "copies_mb": round(disk_bytes(folder / "copies.parquet") / 1e6, 1),
        "samples_per_user": NUM_SAMPLES,
    }
    report("history 1,000, 40 samples a user", speeds, "copies from parquet", facts)


def main() -> None:
    """Runs the workloads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="for the data; a temporary one by default")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        arrays = workload.generate(200_000, 100_000)
        if "short" in args.workloads:
            short_histories(Path(folder) / "short", "DIN-C1, mean history 20.7", arrays, args)
        if "fifty" in args.workloads:
            short_histories(Path(folder) / "fifty", "history 50", fixed_length(arrays), args)
        if "long" in args.workloads:
            long_histories(Path(folder) / "long", args)


if __name__ == "__main__":
    main()
