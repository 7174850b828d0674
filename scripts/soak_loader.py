"""Kills the processes that read a data set, again and again, and checks what they read.

Every round reads on from the last step that all ranks had finished, with another number of ranks
and of data workers, until it is killed with SIGKILL at a random step. In the end the samples of
every global batch must be those that one process reads undisturbed, in the same order of batches,
and no data worker may be left.

    python scripts/soak_loader.py --data datasets/synthetic --cache /tmp/cache --kills 20
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.schema import read_schema

ROOT = Path(__file__).resolve().parents[1]
RANKS, WORKERS = (1, 2), (0, 2)

# the samples of each global batch, and how many batches there are
Batches = list[list[int]]


def build_loader(options: argparse.Namespace, rank: int, ranks: int, workers: int) -> RankingLoader:
    """The loader under test."""
    return RankingLoader(
        root=options.data,
        schema=read_schema(options.data),
        split="train",
        options=LoaderOptions(
            batch_size=options.batch_size,
            max_length=50,
            cache_dir=str(options.cache) if workers else None,
            num_workers=workers,
            prefetch=4,
        ),
        seed=2026,
        shuffle=True,
        rank=rank,
        world_size=ranks,
    )


def read(options: argparse.Namespace) -> None:
    """One rank: appends the samples of each batch to a file, a line a step."""
    loader = build_loader(options, options.rank, options.ranks, options.workers)
    epoch, step = divmod(options.first, loader.num_steps)
    with options.log.open("a", buffering=1) as log:
        while epoch < options.epochs:
            for batch in loader.batches(epoch, step):
                log.write(" ".join(map(str, batch.sample_id.tolist())) + "\n")
                # a training step takes time too; without it a small data set is read at once
                time.sleep(options.pause)
            epoch, step = epoch + 1, 0


def undisturbed(options: argparse.Namespace) -> Batches:
    """Reads everything in this process."""
    loader = build_loader(options, 0, 1, 0)
    return [
        sorted(batch.sample_id.tolist())
        for epoch in range(options.epochs)
        for batch in loader.batches(epoch)
    ]


def read_logs(paths: list[Path]) -> Batches:
    """Returns the global batches that all ranks have finished."""
    # a line without its end was cut off by the kill
    ranks = [path.read_text().split("\n")[:-1] if path.exists() else [] for path in paths]
    return [
        sorted(int(text) for line in lines for text in line.split())
        for lines in zip(*ranks, strict=False)
    ]


def one_round(
    options: argparse.Namespace, folder: Path, first: int, stop: int, setting: tuple[int, int]
) -> Batches:
    """Reads on from step `first` and kills all ranks when they are at `stop`."""
    ranks, workers = setting
    logs = [folder / f"rank-{rank}" for rank in range(ranks)]
    for path in folder.iterdir():
        path.unlink()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "data"), str(ROOT / "kernels")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, *sys.argv[1:], "--read", f"--first={first}"]
    command += [f"--ranks={ranks}", f"--workers={workers}"]
    children = [
        subprocess.Popen([*command, f"--rank={rank}", f"--log={log}"], env=environment)
        for rank, log in enumerate(logs)
    ]
    while any(child.poll() is None for child in children):
        if first + len(read_logs(logs)) >= stop:
            for child in children:
                child.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    bad = [child.returncode for child in children if child.returncode not in (0, -signal.SIGKILL)]
    if bad:
        raise SystemExit(f"a rank ended with exit code {bad[0]}")
    return read_logs(logs)


def workers_left(cache: Path) -> int:
    """Returns how many processes still have a file of the cache mapped, a moment after a kill."""
    for _ in range(100):
        count = 0
        for maps in Path("/proc").glob("[0-9]*/maps"):
            try:
                count += str(cache) in maps.read_text()
            except OSError:
                continue
        if count == 0:
            return 0
        time.sleep(0.1)
    return count


def main() -> None:
    """Runs the rounds and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--pause", type=float, default=0.002, help="seconds a step takes")
    for name in ("rank", "ranks", "workers", "first"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options)
        return
    expected = undisturbed(options)
    generator = np.random.default_rng(options.seed)
    stops = np.sort(generator.choice(len(expected) - 1, options.kills, replace=False)) + 1
    found: Batches = []
    settings: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, stop in enumerate([*stops.tolist(), len(expected) + 1]):
            # all four settings in turn, so that every change of ranks and workers happens
            setting = (RANKS[number // 2 % 2], WORKERS[number % 2])
            found += one_round(options, Path(folder), len(found), stop, setting)
            name = f"ranks {setting[0]}, workers {setting[1]}"
            settings[name] = settings.get(name, 0) + 1
            if left := workers_left(options.cache.resolve()):
                raise SystemExit(f"{left} data worker(s) outlived the kill of their rank")
    same = found == expected
    result = {
        "kills": options.kills,
        "rounds": settings,
        "steps": len(expected),
        "samples": sum(map(len, expected)),
        "equal_to_undisturbed": same,
    }
    print(json.dumps(result))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
