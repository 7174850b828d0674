"""Measures what surviving costs: the messages and checks of a step, and the stall of a save.

python scripts/benchmark_survival.py overhead experiment=synthetic_din
    dataset.path=datasets/synthetic
python scripts/benchmark_survival.py stall --gigabytes 1

overhead: the share of the training loop that goes into control words, checks, the pulse and
logging, as wall time and as CPU time of the training thread (waiting for another rank is no cost of
the message that it waits in). stall: how long training stands still for a save, in step and behind
the training, against writing the same bytes to one file and waiting for the disk; interleaved.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_GIGABYTE = 10**9
_WIDTH = 64


def measure_overhead(overrides: list[str], ranks: int, out: Path) -> None:
    """Trains with clocks around everything that is not training, and prints the shares."""
    import ranker.trainer
    from ranker.logging import RunLog
    from ranker.supervision.guard import Guard
    from ranker.supervision.pulse import Pulse
    from scripts.soak import Study

    watched: tuple[tuple[str, type, str], ...] = (
        ("control words and loss checks", Guard, "after_step"),
        ("pulse", Pulse, "enter"),
        ("progress line", RunLog, "step"),
        ("training records", ranker.trainer.Trainer, "_log_training"),
    )

    def install(rank: int) -> None:
        spent: dict[str, list[float]] = {}
        for name, owner, method in watched:
            _clock(owner, method, spent.setdefault(name, [0.0, 0.0]))
        for name, method in (("evaluations", "_evaluate"), ("saves", "_save")):
            _clock(ranker.trainer.Trainer, method, spent.setdefault(name, [0.0, 0.0]))
        total = spent.setdefault("all", [0.0, 0.0])
        _clock(ranker.trainer.Trainer, "_train_epoch", total)
        original = ranker.trainer.Trainer.fit

        def fit(self: Any) -> Any:
            progress = original(self)
            (out / f"rank-{rank}.json").write_text(json.dumps([progress.step, spent]))
            return progress

        setattr(ranker.trainer.Trainer, "fit", fit)  # noqa: B010

    study = Study(overrides, ranks, out, hook=install)
    for rank in range(ranks):
        steps, spent = json.loads((study.out / f"rank-{rank}.json").read_text())
        loop = [spent["all"][i] - spent["evaluations"][i] - spent["saves"][i] for i in (0, 1)]
        print(f"rank {rank}: {steps} steps, {1e3 * loop[0] / steps:.2f} ms each (wall)")
        print(f"{'':32}{'wall':>10}{'CPU':>10}")
        for name, _, _ in watched:
            shares = [spent[name][i] / loop[i] for i in (0, 1)]
            print(f"{name:32}{shares[0]:>10.3%}{shares[1]:>10.3%}")
        sums = [sum(spent[name][i] for name, _, _ in watched) / loop[i] for i in (0, 1)]
        print(f"{'together':32}{sums[0]:>10.3%}{sums[1]:>10.3%}")


def _clock(owner: type, method: str, spent: list[float]) -> None:
    original: Callable[..., Any] = getattr(owner, method)

    def timed(*args: Any, **kwargs: Any) -> Any:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return original(*args, **kwargs)
        finally:
            spent[0] += time.perf_counter() - wall
            spent[1] += time.thread_time() - cpu

    setattr(owner, method, timed)


def measure_stall(gigabytes: float, repeats: int, out: Path) -> None:
    """Saves a table of the given size in turn with a raw write of its bytes."""
    import torch
    from torch import nn
    from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper

    from ranker.checkpoint import Trainable
    from ranker.checkpoint_writer import CheckpointWriter
    from ranker.distributed import process_group

    rows = int(gigabytes * _GIGABYTE / (4 * _WIDTH))
    model = nn.Embedding(rows, _WIDTH)
    dense = KeyedOptimizerWrapper({}, lambda params: torch.optim.SGD([torch.zeros(1)], lr=0.1))
    trainable = Trainable(model=model, optimizer=CombinedOptimizer([]), dense=dense)
    data = model.weight.detach().numpy()
    seconds: dict[str, list[float]] = {"raw write": [], "in step": [], "behind": [], "copy": []}
    out.mkdir(parents=True, exist_ok=True)
    with process_group("cpu"):
        writers = {
            "in step": CheckpointWriter(out / "in_step", keep=1, asynchronous=False),
            "behind": CheckpointWriter(out / "behind", keep=1, asynchronous=True),
        }
        for repeat in range(repeats):
            since = time.perf_counter()
            with (out / "raw").open("wb") as file:
                file.write(data.data)
                file.flush()
                os.fsync(file.fileno())
            seconds["raw write"].append(time.perf_counter() - since)
            (out / "raw").unlink()
            since = time.perf_counter()
            data.copy()
            seconds["copy"].append(time.perf_counter() - since)
            for name, writer in writers.items():
                since = time.perf_counter()
                writer.save(repeat, trainable, {}, None)
                seconds[name].append(time.perf_counter() - since)
                writer.wait()
    shutil.rmtree(out)
    raw = statistics.median(seconds["raw write"])
    print(f"{data.nbytes / _GIGABYTE:.2f} GB, median of {repeats}")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name:12}{middle:8.2f} s  {middle / raw:6.2f} of the raw write  {values}")


def main() -> None:
    """Parses the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("overhead", "stall"))
    parser.add_argument("--out", type=Path, default=Path("survival"), help="folder; removed")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    if options.what == "overhead":
        measure_overhead(options.overrides, options.ranks, options.out)
    else:
        measure_stall(options.gigabytes, options.repeats, options.out)


if __name__ == "__main__":
    main()
