"""What it saves that candidates of one user share a history, for DIN and TWIN.

The same rows are trained on five times: as the loader brings them, every history in a batch once;
with a copy of the history for each candidate (every impression a user of its own, which reads and
looks up what it sees); the same where a search looks every behaviour up, as if nothing knew which
ids are equal; one by one, a step for each candidate; and with one history for all candidates of a
batch, which is what sharing cannot save. Rows, order and initial weights of the first three are the
same, so their losses of the first step must agree; later ones differ by what rounding does to the
weights, and to selections that it changes. Times are CPU time of one thread: of a step, and with
reading Parquet and building batches, once for every row.

    python scripts/benchmark_sharing.py
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hydra import compose, initialize_config_dir
from torch.profiler import ProfilerActivity, profile

from ranker.config import build_train_job, to_plain
from ranker.distributed import process_group
from ranker.job import trainable_of
from ranker.modules import narrowing
from ranker_data.layout import (
    behaviors_arrow_schema,
    behaviors_path,
    samples_arrow_schema,
    samples_path,
)
from ranker_data.schema import Field, Label, Schema, Table, Task, write_schema

ROOT = Path(__file__).resolve().parents[1]
NUM_ITEMS, NUM_CATEGORIES, DIM = 100_000, 1_000, 16
# of a run, which trains on its batches several times; the first steps build what later ones use
BATCHES, PASSES, WARM_UP = 6, 4, 3
STEPS = BATCHES * PASSES
SCHEMA = Schema(
    name="sharing",
    time_unit="s",
    tables=(
        Table(name="item", num_embeddings=NUM_ITEMS),
        Table(name="category", num_embeddings=NUM_CATEGORIES),
    ),
    fields=tuple(Field(name=n, kind="id", side="item", table=n) for n in ("item", "category")),
    behaviors=tuple(Field(name=n, kind="id", table=n) for n in ("item", "category")),
    labels=(Label(name="click"),),
    tasks=(Task(name="ctr", label="click"),),
)
DIN = (
    "sequence=[din]",
    "sequence.din.hidden_units=[80,40]",
    "sequence.din.activation=sigmoid",
    "sequence.din.normalize=softmax",
)
TWIN = ("sequence=[twin]",)
# name, candidates of a batch, length of a history, overrides
WORKLOADS = (
    ("DIN, histories of 50", 1024, 50, DIN),
    ("DIN, histories of 200", 1024, 200, DIN),
    ("TWIN, histories of 1,000", 1024, 1000, TWIN),
    ("TWIN, histories of 10,000", 512, 10_000, TWIN),
)


def write_dataset(root: Path, *, rows: int, share: int, length: int, copies: bool) -> None:
    """Writes histories of which each is seen by `share` rows, or by one copy for each row."""
    generator = np.random.default_rng(2026)
    users = rows // share
    category_of = generator.integers(1, NUM_CATEGORIES, NUM_ITEMS)
    items = generator.zipf(1.2, users * length) % (NUM_ITEMS - 1) + 1
    targets = generator.zipf(1.2, rows) % (NUM_ITEMS - 1) + 1
    labels = (generator.random(rows) < 0.2).astype(np.float32)
    owner = np.arange(rows) // share
    if copies:
        items = items.reshape(users, length)[owner].reshape(-1)
        users, owner = rows, np.arange(rows)
    behaviors = {
        "user": np.repeat(np.arange(users), length),
        "time": np.tile(np.arange(length), users),
        "item": items,
        "category": category_of[items],
    }
    samples = {
        **{name: np.arange(rows) for name in ("sample_id", "request")},
        "user": owner,
        "time": np.full(rows, length),
        "history_end": np.full(rows, length),
        "item": targets,
        "category": category_of[targets],
        "click": labels,
        "weight": np.ones(rows, np.float32),
    }
    root.mkdir(parents=True)
    write_schema(SCHEMA, root)
    for path, columns, schema in (
        (behaviors_path(root, 0), behaviors, behaviors_arrow_schema(SCHEMA)),
        (samples_path(root, "train", 0), samples, samples_arrow_schema(SCHEMA)),
    ):
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns, schema=schema), path)


def train(
    data: Path, batch_size: int, length: int, lookups: str, overrides: list[str]
) -> dict[str, Any]:
    """Trains a few steps; returns losses, seconds for each batch, and the largest tensor."""
    torch.set_num_threads(1)
    if lookups == "all":
        vars(narrowing)["distinct"] = lambda ids: (ids, torch.arange(len(ids)))
    options = [
        *("dataset=prepared", f"dataset.path={data}", "name=sharing", "run_root=unused"),
        *(f"loader.batch_size={batch_size}", f"loader.max_length={length}", *overrides),
    ]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        job = build_train_job(to_plain(compose("train", options)))
    losses, seconds = [], []
    with process_group("cpu") as process:
        sharded = job.build_sharded(process.device)
        step = job.build_train_step(sharded, trainable_of(sharded), rank=0, total_steps=STEPS)
        loader = job.build_loader("train", process, shuffle=False)
        start = time.process_time()
        batches = list(itertools.islice(loader.batches(), BATCHES))
        loading = time.process_time() - start
        for number in range(STEPS - 1):
            start = time.process_time()
            losses.append(float(step(batches[number % BATCHES], number).loss))
            seconds.append(time.process_time() - start)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            losses.append(float(step(batches[-1], STEPS - 1).loss))
    largest = max(event.self_cpu_memory_usage for event in profiler.events() or [])
    return {
        "losses": losses,
        "loading": loading / BATCHES,
        "step": float(np.median(seconds[WARM_UP:])),
        "largest": largest,
    }


def measure(*arguments: str) -> dict[str, Any]:
    """Runs `train` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--train", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    """Writes each workload in both forms, trains on them and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--train", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        data, batch_size, length, lookups, *overrides = arguments.train
        result = train(Path(data), int(batch_size), int(length), lookups, overrides)
        print(json.dumps(result))
        return
    print(
        "| workload | share | one by one | nothing shared | own copies, with reading "
        "| shared, with reading | times nothing shared | times own copies, with reading | at most "
        "| loss of the first step, of the last differs by | largest tensor (MB) "
        "| a [C, L, D] tensor (MB) |\n" + "| --- " * 12 + "|"
    )
    for name, batch_size, length, overrides in WORKLOADS:
        for share in arguments.share if arguments.only in name else ():
            results = [
                measure_form(batch_size, length, overrides, share=rows, copies=copies)
                for rows, copies in ((share, True), (share, False), (batch_size, False))
            ]
            # without a search every behaviour is looked up as it is
            alone = results[0]
            if overrides == TWIN:
                alone = measure_form(
                    batch_size, length, overrides, share=share, copies=True, lookups="all"
                )
            single = measure_form(1, length, overrides, share=1, copies=False)
            print_row(name, share, batch_size, length, results, alone, single)


def measure_form(
    batch_size: int,
    length: int,
    overrides: tuple[str, ...],
    *,
    share: int,
    copies: bool,
    lookups: str = "distinct",
) -> dict[str, Any]:
    """Writes a data set in one of the forms and trains on it."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_dataset(data, rows=batch_size * BATCHES, share=share, length=length, copies=copies)
        return measure(f"{data}", f"{batch_size}", f"{length}", lookups, *overrides)


def print_row(
    name: str,
    share: int,
    batch_size: int,
    length: int,
    results: list[dict[str, Any]],
    alone: dict[str, Any],
    single: dict[str, Any],
) -> None:
    """Prints one line, of own copies, shared and one history; nothing shared; one by one."""
    steps = [result["step"] for result in results]
    whole = [result["loading"] + result["step"] for result in results]
    rates = [
        f"{batch_size / step:,.0f}, {batch_size / both:,.0f}"
        for step, both in zip(steps, whole, strict=True)
    ]
    shared = results[1]["losses"]
    changes = [
        max(abs(a - b), abs(c - b))
        for a, b, c in zip(results[0]["losses"], shared, alone["losses"], strict=True)
    ]
    assert all(map(math.isfinite, changes))
    pairs = batch_size * length * 2 * DIM * 4 / 1e6
    print(
        f"| {name} | {share} | {1 / single['step']:,.0f} | {batch_size / alone['step']:,.0f} | "
        f"{rates[0]} | {rates[1]} | {alone['step'] / steps[1]:.1f} | "
        f"{steps[0] / steps[1]:.1f}, {whole[0] / whole[1]:.1f} | {steps[0] / steps[2]:.1f} | "
        f"{changes[0]:.1e}, {changes[-1]:.1e} | "
        f"{results[1]['largest'] / 1e6:.1f} | {pairs:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
