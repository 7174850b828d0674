"""Runs ranks with something wrong; forks them, so that a test does not wait for imports.

Reads one JSON object a line: overrides of scripts/train.py, the name of a fault, the log's path;
answers with the exit codes of the ranks.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

import ranker.checkpoint_writer
import ranker.command
import ranker.config
import ranker.train_step
import ranker.trainer
from ranker_data.reader import DataError
from scripts.soak import CONFIGS, Ranks, do_nothing

# steps taken before the fault strikes
STEP = 4


def at_step(
    rank: int, victim: int, act: Callable[[Any], Any], after: bool = False, at: int = STEP
) -> None:
    """Makes a rank do something before its step, or to the result of it."""
    if rank != victim:
        return
    original = ranker.train_step.TrainStep.__call__

    def step(self: Any, batch: Any, number: int) -> Any:
        if number != at:
            return original(self, batch, number)
        if after:
            return act(original(self, batch, number))
        act(batch)
        return original(self, batch, number)

    setattr(ranker.train_step.TrainStep, "__call__", step)  # noqa: B010 - mypy knows its type


def send(number: int) -> Callable[[Any], None]:
    return lambda batch: os.kill(os.getpid(), number)


def refuse(batch: Any) -> None:
    raise DataError("part-00003.parquet: row 17 is bad")


def crash(batch: Any) -> None:
    raise ZeroDivisionError("a bug of rank 1")


def hang(batch: Any) -> None:
    time.sleep(60)


def kill_workers(batch: Any) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    workers = [
        p for p in children if b"ranker_data.worker" in Path(f"/proc/{p}/cmdline").read_bytes()
    ]
    assert workers
    for worker in workers:
        os.kill(int(worker), signal.SIGKILL)


def break_loss(result: Any) -> Any:
    return type(result)(result.loss * torch.nan, result.parts)


def twice(batch: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3.5)
    os.kill(os.getpid(), signal.SIGTERM)


def fill_disk(batch: Any) -> None:
    # torch writes more than this into one file; status.json and metrics.jsonl still fit
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def break_save(rank: int) -> None:
    def describe_files(paths: Any) -> None:
        raise OSError("no space on rank 1")

    if rank == 1:
        vars(ranker.checkpoint_writer)["describe_files"] = describe_files


FAULTS: dict[str, Callable[[int], None]] = {
    "none": do_nothing,
    "killed": lambda rank: at_step(rank, 1, send(signal.SIGKILL)),
    "main killed": lambda rank: at_step(rank, 0, send(signal.SIGKILL)),
    "terminated": lambda rank: at_step(rank, 1, send(signal.SIGTERM)),
    "user signal": lambda rank: at_step(rank, 0, send(signal.SIGUSR1)),
    "interrupted": lambda rank: at_step(rank, rank, send(signal.SIGINT)),
    "terminated twice": lambda rank: at_step(rank, 1, twice),
    "bad row": lambda rank: at_step(rank, 1, refuse),
    "bug": lambda rank: at_step(rank, 1, crash),
    "hang": lambda rank: at_step(rank, 1, hang),
    "workers killed": lambda rank: at_step(rank, 1, kill_workers, at=1),
    "broken loss": lambda rank: at_step(rank, 1, break_loss, after=True),
    "disk full": lambda rank: at_step(rank, rank, fill_disk),
    "failing saves": break_save,
}


def main() -> None:
    torch.set_num_threads(1)
    # jobs that a shell starts in the background ignore it, and so would the ranks
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in sys.stdin:
        request = json.loads(line)
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = ranker.config.to_plain(compose("train", request["overrides"]))
        ranks = Ranks(config, request["ranks"], Path(request["log"]), FAULTS[request["fault"]])
        print(json.dumps(ranks.wait()), flush=True)


if __name__ == "__main__":
    main()
