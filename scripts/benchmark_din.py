"""DIN training throughput end to end, ours and peers side by side in one run (workload DIN-C1).

200,000 rows, histories of up to 50 (mean 20.7) items out of 100,000 with Zipf popularity, tables of
width 16, attention MLP 80-40 with sigmoid and softmax, tower 200-80, batches of 1024, no
regularisation, no evaluation, one thread. Ours reads Parquet through its own loader; the peers read
padded arrays that are in memory already.

    python scripts/benchmark_din.py --peer-python <python of an environment with deepctr-torch and
    torch-rechub>
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ranker_data.layout import (
    behaviors_arrow_schema,
    behaviors_path,
    samples_arrow_schema,
    samples_path,
)
from ranker_data.schema import Field, Label, Schema, Table, Task, write_schema

ROOT = Path(__file__).resolve().parents[1]
NUM_USERS, NUM_CATEGORIES, NUM_PARTS = 10_000, 1_000, 16
PEERS = ("deepctr-torch", "torch-rechub")


def generate(num_rows: int, num_items: int) -> dict[str, Any]:
    """Draws the workload: lognormal history lengths, Zipf(1.05) items with shuffled ids."""
    generator = np.random.default_rng(2026)
    length = np.clip(np.rint(generator.lognormal(2.75, 1.0, num_rows)), 1, 50).astype(np.int64)
    weights = np.cumsum(1 / np.arange(1, num_items) ** 1.05)
    draws = generator.random(length.sum() + num_rows) * weights[-1]
    popularity = np.searchsorted(weights, draws).clip(0, num_items - 2)
    item = generator.permutation(num_items - 1)[popularity] + 1
    category_of = generator.integers(1, NUM_CATEGORIES, num_items)
    history, item = item[: length.sum()], item[length.sum() :]
    return {
        "length": length,
        "hist_item": history,
        "hist_category": category_of[history],
        "item": item,
        "category": category_of[item],
        "user": generator.integers(1, NUM_USERS, num_rows),
        "label": (generator.random(num_rows) < 0.2).astype(np.float32),
        "num_users": NUM_USERS,
        "num_items": num_items,
        "num_categorys": NUM_CATEGORIES,
    }


def write_dataset(arrays: dict[str, Any], root: Path) -> None:
    """Writes the event log; every row is a user of its own, so that no history is shared."""
    tables = {"user": NUM_USERS, "item": arrays["num_items"], "category": NUM_CATEGORIES}
    inherent = ("item", "category")
    schema = Schema(
        name="din_c1",
        time_unit="s",
        tables=tuple(Table(name=name, num_embeddings=size) for name, size in tables.items()),
        fields=(
            Field(name="user_id", kind="id", side="user", table="user"),
            *(Field(name=name, kind="id", side="item", table=name) for name in inherent),
        ),
        behaviors=tuple(Field(name=name, kind="id", table=name) for name in inherent),
        labels=(Label(name="click"),),
        tasks=(Task(name="ctr", label="click"),),
    )
    root.mkdir(parents=True)
    write_schema(schema, root)
    num_rows = len(arrays["length"])
    offsets = np.concatenate([[0], np.cumsum(arrays["length"])])
    bounds = np.linspace(0, num_rows, NUM_PARTS + 1).astype(int)
    for part, (begin, end) in enumerate(pairwise(bounds)):
        rows, length = np.arange(begin, end), arrays["length"][begin:end]
        events = slice(offsets[begin], offsets[end])
        behaviors = {
            "user": np.repeat(rows, length),
            "time": np.arange(offsets[begin], offsets[end]) - np.repeat(offsets[begin:end], length),
            "item": arrays["hist_item"][events],
            "category": arrays["hist_category"][events],
        }
        samples = {
            **{name: rows for name in ("sample_id", "user", "request")},
            "time": length,
            "history_end": length,
            "user_id": arrays["user"][begin:end],
            "item": arrays["item"][begin:end],
            "category": arrays["category"][begin:end],
            "click": arrays["label"][begin:end],
            "weight": np.ones(end - begin, np.float32),
        }
        write(behaviors, behaviors_path(root, part), behaviors_arrow_schema(schema))
        for split in ("train", "valid"):
            write(samples, samples_path(root, split, part), samples_arrow_schema(schema))


def write(columns: dict[str, Any], path: Path, schema: pa.Schema) -> None:
    """Writes one part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema), path, compression="zstd")


def train_ours(data: Path, run_root: Path) -> None:
    """Trains one epoch in this process and prints rows, CPU and wall seconds as JSON."""
    import time

    import torch
    from hydra import compose, initialize_config_dir

    from ranker.config import build_train_job, to_plain
    from ranker.distributed import process_group
    from ranker.run_dir import claim_run_dir
    from ranker.supervision.supervisor import supervise
    from ranker.trainer import Trainer

    class Measured(Trainer):
        """Training alone: the peers neither evaluate nor save."""

        def _evaluate(self) -> None:
            self.progress.last_evaluation = self.progress.step

        def _save(self) -> None:
            self._saved_step = self.progress.step

    torch.set_num_threads(1)
    overrides = [
        "experiment=benchmark_din",
        f"dataset.path={data}",
        f"run_root={run_root}",
    ]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        job = build_train_job(to_plain(compose("train", overrides)))
    with (
        process_group("cpu") as process,
        claim_run_dir(job.run_dir, job.config) as run,
        supervise(run, process) as supervisor,
    ):
        trainer = Measured(job, process, run, supervisor)
        cpu, wall = time.process_time(), time.perf_counter()
        progress = trainer.fit()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    result = {
        "rows": progress.step * job.loader.batch_size,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "optimizers": f"{job.optimizer.sparse} on tables, {job.optimizer.dense} on the rest",
    }
    print(json.dumps(result))


def measure(command: list[str]) -> dict[str, Any]:
    """Runs one contender in its own process with one thread and returns what it printed last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    """Generates the workload, runs all contenders and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer-python", help="interpreter of an environment with the peers")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the median is reported")
    parser.add_argument("--train-ours", nargs=2, metavar=("DATA", "RUNS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train_ours:
        train_ours(*map(Path, arguments.train_ours))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        arrays = generate(arguments.rows, arguments.items)
        np.savez(root / "arrays.npz", **arrays)
        write_dataset(arrays, root / "data")
        this = [sys.executable, str(Path(__file__)), "--train-ours", str(root / "data")]
        peer = [arguments.peer_python, str(ROOT / "scripts" / "benchmark_din_peer.py")]
        results: dict[str, list[dict[str, Any]]] = {}
        for round_number in range(arguments.repeats):
            results.setdefault("ours", []).append(measure([*this, str(root / f"{round_number}")]))
            for name in PEERS if arguments.peer_python else ():
                command = [*map(str, peer), name, str(root / "arrays.npz")]
                results.setdefault(name, []).append(measure(command))
    print_table(results)


def print_table(results: dict[str, list[dict[str, Any]]]) -> None:
    """Prints rows per CPU second of each contender and how much faster ours is."""
    rates = {
        name: float(np.median([run["rows"] / run["cpu_seconds"] for run in runs]))
        for name, runs in results.items()
    }
    print(f"{'library':16}{'rows/CPU-s':>12}{'ours is':>10}  optimizers")
    for name, rate in rates.items():
        optimizers = results[name][0]["optimizers"]
        print(f"{name:16}{rate:12,.0f}{rates['ours'] / rate:9.2f}x  {optimizers}")


if __name__ == "__main__":
    main()
