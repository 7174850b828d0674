"""Prepares and streams 10^7 samples of 10^5 users with histories of up to 10^5 events.

Each phase runs in a process of its own, and the memory of the process with all its children is
sampled ten times a second: proportional set size (a page that several processes map counts once),
in total and without the pages of mapped files, which the kernel takes back when it needs them.

    python scripts/benchmark_scale.py --folder /data/scale --phase generate prepare stream

One user with a million events:

    python scripts/benchmark_scale.py --folder /data/one --users 1 --longest 1000000 \
        --samples 2000 --parts 1 --max-length 1000000 --phase generate prepare doctor stream
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
NUM_ITEMS, NUM_CATEGORIES, NUM_FILES = 1_000_000, 1_000, 20
NUM_LONGEST = 20
YEAR, START = 365 * 86_400, 1_600_000_000
DESCRIPTION = """\
name: scale
time_unit: s
samples: {files: samples/*.parquet}
events: {files: events/*.parquet}
fields:
  - {name: user_id, kind: id, side: user, table: user}
  - {name: item, kind: id, table: item}
  - {name: category, kind: id, table: category}
behaviors:
  - {name: item, kind: id, table: item}
  - {name: category, kind: id, table: category}
labels: [{name: click}]
tasks: [{name: ctr, label: click}]
split: {kind: time, valid_fraction: 0.01, test_fraction: 0.01}
"""


def generate(folder: Path, num_users: int, num_samples: int, longest: int) -> None:
    """Writes raw events and samples, a block of users at a time."""
    generator = np.random.default_rng(2026)
    # half of the users have fewer than 80 events, one in fifty more than 1,700
    lengths = np.rint(generator.lognormal(np.log(80), 1.5, num_users)).clip(0, longest)
    lengths = lengths.astype(np.int64)
    lengths[generator.choice(num_users, min(NUM_LONGEST, num_users), replace=False)] = longest
    share = generator.lognormal(0, 1, num_users)
    bounds = np.rint(np.cumsum(share) / share.sum() * num_samples).astype(np.int64)
    counts = np.diff(bounds, prepend=0)
    category_of = generator.integers(1, NUM_CATEGORIES, NUM_ITEMS)
    weights = np.cumsum(1 / np.arange(1, NUM_ITEMS) ** 1.05)
    for name in ("events", "samples"):
        (folder / name).mkdir(parents=True)
    blocks = np.array_split(np.arange(num_users), min(NUM_FILES, num_users))
    for block, users in enumerate(blocks):
        for name, sizes in (("events", lengths[users]), ("samples", counts[users])):
            total = int(sizes.sum())
            item = np.searchsorted(weights, generator.random(total) * weights[-1])
            columns = {
                "user": np.repeat(users, sizes),
                "time": START + generator.integers(0, YEAR, total),
                "item": item,
                "category": category_of[item],
            }
            if name == "samples":
                columns["user_id"] = columns["user"]
                columns["click"] = (generator.random(total) < 0.2).astype(np.int64)
            path = folder / name / f"{block:03d}.parquet"
            pq.write_table(pa.table(columns), path, compression="zstd")
    (folder / "dataset.yaml").write_text(DESCRIPTION)
    print(json.dumps({"events": int(lengths.sum()), "samples": int(counts.sum())}))


def prepare_command(folder: Path, num_parts: int, memory_limit: str) -> list[str]:
    """The preparation as a user runs it."""
    return [
        sys.executable,
        str(ROOT / "scripts" / "prepare_data.py"),
        "dataset=custom",
        f"source={folder / 'raw'}",
        f"out={folder / 'prepared'}",
        f"dataset.converter.num_parts={num_parts}",
        f"engine.memory_limit={memory_limit}",
    ]


def stream(folder: Path, cache: Path | None, num_workers: int, max_length: int) -> None:
    """Reads an epoch of batches of 1024 and prints what it was."""
    import torch

    from ranker_data.loader import LoaderOptions, RankingLoader
    from ranker_data.schema import read_schema

    torch.set_num_threads(1)
    root = folder / "prepared"
    loader = RankingLoader(
        root=root,
        schema=read_schema(root),
        split="train",
        options=LoaderOptions(
            batch_size=1024,
            max_length=max_length,
            cache_dir=None if cache is None else str(cache),
            num_workers=num_workers,
        ),
        seed=1,
        shuffle=True,
        rank=0,
        world_size=1,
    )
    begin = time.monotonic()
    loader.check()
    checked, most, rows, behaviors = time.monotonic(), 0, 0, 0
    for batch in loader.batches():
        rows += batch.num_candidates
        behaviors += batch.num_behaviors
        most = max(most, batch.num_behaviors)
    result = {
        "max_length": max_length,
        "cache": cache is not None,
        "num_workers": num_workers,
        "check_seconds": round(checked - begin, 1),
        "stream_seconds": round(time.monotonic() - checked, 1),
        "rows": rows,
        "behaviors": behaviors,
        "most_behaviors_in_a_batch": most,
    }
    print(json.dumps(result), flush=True)


def memory_of_tree(pid: int) -> tuple[int, int]:
    """Returns proportional set size of a process and its descendants: all, and without files."""
    total = private = 0
    for process in descendants(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name == "Pss":
                    total += int(rest.split()[0]) * 1024
                elif name in ("Pss_Anon", "Pss_Shmem"):
                    private += int(rest.split()[0]) * 1024
    return total, private


def descendants(pid: int) -> list[int]:
    """Returns a process and all processes below it."""
    found = [pid]
    for process in found:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{process}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
    return found


def measured(command: list[str]) -> dict[str, float]:
    """Runs a command and returns its seconds and its highest memory in GB."""
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = peak_private = 0
    with subprocess.Popen(command) as child:
        while child.poll() is None:
            total, private = memory_of_tree(child.pid)
            peak, peak_private = max(peak, total), max(peak_private, private)
            time.sleep(0.1)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_seconds": round(time.monotonic() - begin, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_gb": round(peak / 1e9, 2),
        "peak_without_files_gb": round(peak_private / 1e9, 2),
    }


def main() -> None:
    """Runs the phases and prints what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--longest", type=int, default=100_000, help="events of the longest users")
    parser.add_argument("--parts", type=int, default=64)
    parser.add_argument("--memory-limit", default="4GB", help="of the preparation's engine")
    parser.add_argument("--phase", nargs="+", default=["generate", "prepare", "stream"])
    parser.add_argument("--max-length", type=int, default=1000, help="of a streamed history")
    parser.add_argument("--cache", type=Path, help="folder of the packed cache; none without")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--in-child", choices=["generate", "stream"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), str(ROOT / "data"), str(ROOT / "kernels")]
    )
    if options.in_child == "generate":
        generate(options.folder / "raw", options.users, options.samples, options.longest)
        return
    if options.in_child == "stream":
        stream(options.folder, options.cache, options.workers, options.max_length)
        return
    for phase in options.phase:
        if phase in ("generate", "stream"):
            command = [sys.executable, *sys.argv, "--in-child", phase]
        elif phase == "doctor":
            script = str(ROOT / "scripts" / "doctor.py")
            command = [sys.executable, script, f"data={options.folder / 'prepared'}"]
        else:
            command = prepare_command(options.folder, options.parts, options.memory_limit)
        print(json.dumps({"phase": phase, **measured(command)}), flush=True)


if __name__ == "__main__":
    main()
