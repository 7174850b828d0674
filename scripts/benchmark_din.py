"""DIN training throughput end to end, ours and peers side by side in one run (workload DIN-C1).

200,000 rows, histories of up to 50 (mean 20.7) items out of 100,000 with Zipf popularity, tables of
width 16, attention MLP 80-40 with sigmoid and softmax, tower 200-80, batches of 1024, no
regularisation, one thread. Ours reads Parquet through its own loader; the peers read padded arrays
that are in memory already. A click wants an item whose category has a taste like one of the
history's; nine rows of ten are trained on, once, and the others tell the AUC, which is not timed.

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
import pyarrow.compute as pc
import pyarrow.parquet as pq

# before torch, as in scripts/train.py: it says how threads wait
import ranker  # noqa: F401
from ranker_data.layout import (
    behaviors_arrow_schema,
    behaviors_path,
    samples_arrow_schema,
    samples_path,
)
from ranker_data.schema import Field, Label, Schema, Table, Task, write_schema

ROOT = Path(__file__).resolve().parents[1]
NUM_USERS, NUM_CATEGORIES, NUM_PARTS = 10_000, 1_000, 16
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
PEERS = ("deepctr-torch", "torch-rechub")
# rows of a global batch
SCALING_BATCHES = (1024, 4096)


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
    probability = click_probability(generator, length, category_of[history], category_of[item])
    return {
        "length": length,
        "hist_item": history,
        "hist_category": category_of[history],
        "item": item,
        "category": category_of[item],
        "user": generator.integers(1, NUM_USERS, num_rows),
        "label": (generator.random(num_rows) < probability).astype(np.float32),
        "is_test": np.arange(num_rows) % 10 == 9,
        "num_users": NUM_USERS,
        "num_items": num_items,
        "num_categorys": NUM_CATEGORIES,
    }


def first_rows(arrays: dict[str, Any], count: int) -> dict[str, Any]:
    """Returns the workload's first rows."""
    behaviors = int(arrays["length"][:count].sum())
    return {
        name: value
        if name.startswith("num_")
        else value[: behaviors if name.startswith("hist_") else count]
        for name, value in arrays.items()
    }


def click_probability(
    generator: np.random.Generator,
    length: np.ndarray[Any, np.dtype[np.int64]],
    history: np.ndarray[Any, np.dtype[np.int64]],
    target: np.ndarray[Any, np.dtype[np.int64]],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns the true probability of each row, given the categories of histories and targets.

    A category has a bias and a place in a space of tastes; what counts of a history is the item
    that is nearest to the target.
    """
    bias = generator.normal(0, 0.7, NUM_CATEGORIES)
    place = generator.normal(0, 1, (NUM_CATEGORIES, 4))
    likeness = (place[history] * place[np.repeat(target, length)]).sum(1)
    nearest = np.maximum.reduceat(likeness, np.cumsum(length) - length)
    probability: np.ndarray[Any, np.dtype[np.float64]] = 1 / (
        1 + np.exp(2.8 - bias[target] - 0.5 * nearest)
    )
    return probability


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
        write(
            pa.table(behaviors, schema=behaviors_arrow_schema(schema)), behaviors_path(root, part)
        )
        table = pa.table(samples, schema=samples_arrow_schema(schema))
        is_test = pa.array(arrays["is_test"][begin:end])
        for split, mask in (("train", pc.invert(is_test)), ("valid", is_test), ("test", is_test)):
            write(table.filter(mask), samples_path(root, split, part))


def write(table: pa.Table, path: Path) -> None:
    """Writes one part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def train_ours(data: Path, run_root: Path, overrides: list[str]) -> None:
    """Trains one epoch and prints rows, CPU and wall seconds and the AUC as JSON.

    In this process, with the threads that OMP_NUM_THREADS says, or in those that torchrun started.
    """
    import time

    import torch
    from hydra import compose, initialize_config_dir

    from ranker.config import build_train_job, to_plain
    from ranker.distributed import gather_to_main, process_group
    from ranker.evaluate import compute_scores, predict
    from ranker.run_dir import claim_run_dir
    from ranker.supervision.supervisor import supervise
    from ranker.trainer import Trainer

    class Measured(Trainer):
        """Training alone: the peers neither evaluate nor save."""

        def _evaluate(self) -> None:
            self.progress.last_evaluation = self.progress.step

        def _save(self) -> None:
            self._saved_step = self.progress.step

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    paths = [f"dataset.path={data}", f"run_root={run_root}"]
    overrides = ["experiment=benchmark_din", *paths, *overrides]
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
        spent = gather_to_main(cpu)
        predictions = predict(
            trainer.trainable.model, trainer.valid_loader, job.schema, process.device
        )
        scores = compute_scores(predictions)
    if spent is None:
        return
    result = {
        "rows": progress.step * job.loader.batch_size,
        "cpu_seconds": max(spent),
        "auc": scores["ctr.auc"],
        "wall_seconds": wall,
        "optimizers": f"{job.optimizer.sparse} on tables, {job.optimizer.dense} on the rest",
    }
    print(json.dumps(result))


def measure(
    command: list[str], threads: int = 1, *, cores: set[int] | None = None
) -> dict[str, Any]:
    """Runs one contender in a process of its own and returns what it printed last."""
    environment = {**os.environ, "OMP_NUM_THREADS": f"{threads}", "MKL_NUM_THREADS": f"{threads}"}
    all_cores = os.sched_getaffinity(0)
    # the child has them from this process
    os.sched_setaffinity(0, cores or all_cores)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    finally:
        os.sched_setaffinity(0, all_cores)
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
    parser.add_argument("--peer-rows", type=int, help="the peers train on the first so many only")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; a seed for each")
    parser.add_argument(
        "--scaling",
        action="store_true",
        help="ours alone, with one and two threads and with two ranks, by wall time",
    )
    parser.add_argument("--train-ours", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train_ours:
        data, run_root, *overrides = arguments.train_ours
        train_ours(Path(data), Path(run_root), overrides)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        arrays = generate(arguments.rows, arguments.items)
        np.savez(root / "arrays.npz", **first_rows(arrays, arguments.peer_rows or arguments.rows))
        write_dataset(arrays, root / "data")
        if arguments.scaling:
            print_scaling(measure_scaling(root, arguments.repeats))
        else:
            print_table(measure_all(root, arguments.repeats, arguments.peer_python))


def measure_all(
    root: Path, repeats: int, peer_python: str | None
) -> dict[str, list[dict[str, Any]]]:
    """Runs all contenders in turns, each round with a seed, and returns what each measured."""
    results: dict[str, list[dict[str, Any]]] = {}
    for number in range(repeats):
        this = [sys.executable, __file__, "--train-ours", f"{root}/data", f"{root}/{number}"]
        results.setdefault("ours", []).append(measure([*this, f"seed={number}"]))
        for name in PEERS if peer_python else ():
            script = ROOT / "scripts" / "benchmark_din_peer.py"
            command = [f"{peer_python}", f"{script}", name, f"{root}/arrays.npz", f"{number}"]
            results.setdefault(name, []).append(measure(command))
    return results


def measure_scaling(root: Path, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Runs ours with one and two threads, and with two ranks of one thread each.

    With one thread on any core, the loader's thread has a core of its own; on one core it has not.
    """
    one_core = {min(os.sched_getaffinity(0))}
    results: dict[str, list[dict[str, Any]]] = {}
    for number in range(repeats):
        for batch_size in SCALING_BATCHES:
            for name, launcher, threads, cores in (
                ("one thread", [], 1, None),
                ("one core", [], 1, one_core),
                ("two threads", [], 2, None),
                ("two ranks", TORCHRUN, 1, None),
            ):
                run = f"{root}/{name.replace(' ', '_')}_{batch_size}_{number}"
                this = [*launcher, __file__, "--train-ours", f"{root}/data", run]
                command = [sys.executable, *this, f"loader.batch_size={batch_size}"]
                case = f"{name}, batches of {batch_size}"
                results.setdefault(case, []).append(measure(command, threads, cores=cores))
    return results


def print_table(results: dict[str, list[dict[str, Any]]]) -> None:
    """Prints rows per CPU second of each contender, how much faster ours is, and all AUCs."""
    rates = {name: median_rate(runs, "cpu_seconds") for name, runs in results.items()}
    print(f"{'library':16}{'rows/CPU-s':>12}{'ours is':>10}{'rows':>9}  AUC by seed; optimizers")
    for name, rate in rates.items():
        first = results[name][0]
        scores = " ".join(f"{run['auc']:.4f}" for run in results[name])
        shown = f"{first['rows']:9,}  {scores}; {first['optimizers']}"
        print(f"{name:16}{rate:12,.0f}{rates['ours'] / rate:9.2f}x{shown}")


def print_scaling(results: dict[str, list[dict[str, Any]]]) -> None:
    """Prints rows per second, of wall time and of the CPU time of the slowest process."""
    print(f"{'':34}{'rows/s':>10}{'':8}{'rows/CPU-s':>10}{'':8}{'AUC':>8}")
    for name, runs in results.items():
        shown, one = "", results[f"one thread{name[name.index(',') :]}"]
        for seconds in ("wall_seconds", "cpu_seconds"):
            rate = median_rate(runs, seconds)
            shown += f"{rate:10,.0f}{rate / median_rate(one, seconds):7.2f}x"
        print(f"{name:34}{shown}{runs[0]['auc']:8.4f}")


def median_rate(runs: list[dict[str, Any]], seconds: str) -> float:
    """Returns the median of rows per second."""
    return float(np.median([run["rows"] / run[seconds] for run in runs]))


if __name__ == "__main__":
    main()
