"""Kills a run of several ranks again and again, and checks that it ends as if nothing had happened.

python scripts/soak.py kills --count 20 experiment=synthetic_din dataset.path=datasets/synthetic
python scripts/soak.py saves experiment=synthetic_din dataset.path=datasets/synthetic

kills: SIGKILL of all ranks at random moments; each time the same command is launched again.
saves: SIGKILL of one rank at each thing that it does to the files of a checkpoint, for every rank.

Both compare the last checkpoint, tensor by tensor, and the training records with those of a run
that nobody disturbed: every bit must be equal. What follows the flags overrides scripts/train.py.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# what happens to files, by the names of Python's audit events
FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
_WAIT_SECONDS = 300.0
_POLL_SECONDS = 0.01

Hook = Callable[[int], None]


def do_nothing(rank: int) -> None:
    """Leaves a rank alone."""


class Ranks:
    """The ranks of one launch: forks of this process, which has imported everything already.

    Args:
        config: of the run, plain.
        world_size: how many.
        log: file for what they print.
        before: called in each rank, with its number, before it trains.
    """

    def __init__(
        self, config: Mapping[str, Any], world_size: int, log: Path, before: Hook = do_nothing
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log.parent.mkdir(parents=True, exist_ok=True)
        fork = multiprocessing.get_context("fork")
        self.processes = [
            fork.Process(target=_run_rank, args=(config, rank, world_size, port, log, before))
            for rank in range(world_size)
        ]
        for process in self.processes:
            process.start()

    @property
    def codes(self) -> list[int | None]:
        """Exit codes; None for a rank that is running, negative for a signal."""
        return [process.exitcode for process in self.processes]

    def wait(self) -> list[int | None]:
        """Waits until all have ended.

        Raises:
            TimeoutError: one hangs; all are killed.
        """
        end = time.monotonic() + _WAIT_SECONDS
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        if None in self.codes:
            self.kill()
            raise TimeoutError(f"ranks hang after {_WAIT_SECONDS:.0f} s: {self.codes}")
        return self.codes

    def kill(self) -> None:
        """Kills all of them, as a machine that loses power."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


def _run_rank(
    config: Mapping[str, Any], rank: int, world_size: int, port: int, log: Path, before: Hook
) -> None:
    from ranker.command import run_command
    from ranker.config import build_train_job
    from ranker.trainer import train

    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    before(rank)
    code = run_command(lambda: train(build_train_job(config)))
    sys.stdout.flush()
    sys.stderr.flush()
    # as a rank of its own would: no clean-up of what it inherited
    os._exit(code)


class Study:
    """Disturbed launches of one config, compared with an undisturbed one.

    Args:
        overrides: of scripts/train.py.
        world_size: ranks.
        out: folder for runs and logs; removed first.
        hook: called in each rank of the undisturbed run before it trains.
    """

    def __init__(
        self, overrides: Sequence[str], world_size: int, out: Path, hook: Hook = do_nothing
    ) -> None:
        self.overrides, self.world_size, self.out = list(overrides), world_size, out
        shutil.rmtree(out, ignore_errors=True)
        since = time.monotonic()
        self.finish("undisturbed", hook)
        self.seconds = time.monotonic() - since
        self.expected = self.result("undisturbed")

    def start(self, name: str, before: Hook = do_nothing) -> Ranks:
        """Launches a run, or launches it again."""
        return Ranks(self._config(name), self.world_size, self.out / f"{name}.log", before)

    def finish(self, name: str, hook: Hook = do_nothing) -> None:
        """Launches a run and lets it end.

        Raises:
            RuntimeError: it fails.
        """
        codes = self.start(name, hook).wait()
        if any(codes):
            text = (self.out / f"{name}.log").read_text()[-3000:]
            raise RuntimeError(f"{name} ended with {codes}:\n{text}")

    def step(self, name: str) -> int:
        """Returns the step that a run has reached, by its status.json."""
        try:
            status = json.loads((self.out / name / "status.json").read_text())
        except FileNotFoundError:
            return 0
        return int(status["step"])

    def checkpoint(self, name: str) -> int:
        """Returns the step of the newest checkpoint of a run, 0 without any."""
        from ranker.checkpoint_files import list_checkpoints, step_of

        return max(map(step_of, list_checkpoints(self.out / name / "checkpoints")), default=0)

    def result(self, name: str) -> dict[str, str]:
        """Returns hashes of each tensor of the last checkpoint and of the training losses."""
        from ranker.checkpoint_files import choose
        from ranker.checkpoint_tensors import read_tensors, tensor_shapes
        from ranker.logging import read_records

        path = choose(self.out / name / "checkpoints", "last")
        tensors = read_tensors(path, tensor_shapes(path))
        digests = {
            key: hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
            for key, value in tensors.items()
        }
        losses = [
            (record["kind"], record["step"], record.get("loss"), record.get("ctr.auc"))
            for record in read_records(self.out / name / "metrics.jsonl")
        ]
        return {**digests, "metrics.jsonl": json.dumps(losses)}

    def compare(self, name: str) -> str:
        """Returns "identical", or what differs from the undisturbed run."""
        found = self.result(name)
        differing = [
            key
            for key in sorted(self.expected.keys() | found.keys())
            if self.expected.get(key) != found.get(key)
        ]
        return f"{len(differing)} differ: {', '.join(differing[:3])}" if differing else "identical"

    def _config(self, name: str) -> dict[str, Any]:
        from hydra import compose, initialize_config_dir

        from ranker.config import to_plain

        overrides = [*self.overrides, f"name={name}", f"run_root={self.out}"]
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return to_plain(compose("train", overrides))


def count_events(marker: str, act: Callable[[int, str], None]) -> None:
    """Calls `act` before each thing that this process does to files whose path has `marker`.

    Args:
        marker: part of the path.
        act: gets the number of the event, from 0, and what it is.
    """
    seen = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and marker in str(arguments[:2]):
            number, seen[0] = seen[0], seen[0] + 1
            act(number, f"{event} {Path(str(arguments[0])).name}")

    sys.addaudithook(hook)


def kill_during_saves(study: Study, step: int, points: Sequence[int] | None) -> list[str]:
    """Kills one rank at each file event of the save at `step`; returns what went wrong.

    Args:
        study: to disturb.
        step: of the checkpoint.
        points: numbers of the events to take; None takes all.
    """
    marker, events = f"step-{step:08d}", study.out / "events"
    events.mkdir()

    def record(rank: int) -> None:
        path = events / str(rank)
        path.touch()

        def write(number: int, what: str) -> None:
            with path.open("a") as file:
                file.write(f"{what}\n")

        count_events(marker, write)

    study.start("recorded", record).wait()
    problems, taken = [], 0
    for victim in range(study.world_size):
        found = (events / str(victim)).read_text().splitlines()
        for point in range(len(found)) if points is None else [p for p in points if p < len(found)]:
            name = f"rank-{victim}-point-{point}"

            def arm(rank: int, victim: int = victim, point: int = point) -> None:
                if rank == victim:
                    count_events(
                        marker,
                        lambda number, _: (
                            os.kill(os.getpid(), signal.SIGKILL) if number == point else None
                        ),
                    )

            codes = study.start(name, arm).wait()
            kept = study.checkpoint(name)
            study.finish(name)
            outcome = study.compare(name)
            taken += 1
            print(
                f"rank {victim} killed at {found[point]}: exit codes {codes}, went on from step "
                f"{kept}, {outcome}",
                flush=True,
            )
            killed = codes[victim] == -signal.SIGKILL
            if outcome != "identical" or not killed or 0 in codes:
                problems.append(f"{name}: {outcome}, codes {codes}")
            shutil.rmtree(study.out / name)
    print(f"{taken} kill points around the save of step {step}, {len(problems)} problems")
    return problems


def kill_at_random(study: Study, count: int, interval: int, seed: int) -> list[str]:
    """Kills all ranks `count` times at random moments; returns what went wrong.

    Args:
        study: to disturb.
        count: of the kills; a run that ends before is followed by another one.
        interval: steps between two checkpoints.
        seed: of the moments.
    """
    generator = random.Random(seed)  # noqa: S311 - no secret
    problems: list[str] = []
    kills = runs = most = 0
    while kills < count:
        runs += 1
        name, done = f"run-{runs}", False
        while not done:
            before = study.checkpoint(name)
            ranks = study.start(name)
            if kills == count:
                ranks.wait()
            else:
                end = time.monotonic() + generator.uniform(0.2, 1.0) * study.seconds
                while time.monotonic() < end and None in ranks.codes:
                    time.sleep(_POLL_SECONDS)
            done = all(code == 0 for code in ranks.codes)
            if not done:
                ranks.kill()
                kills += 1
                step, kept = study.step(name), study.checkpoint(name)
                lost = max(step - kept, 0)
                most = max(most, lost)
                print(f"kill {kills}: at step {step}, keeps step {kept}, {lost} lost", flush=True)
                if lost > interval or kept < before:
                    problems.append(f"kill {kills} lost {lost} steps")
        outcome = study.compare(name)
        print(f"{name} ended: {outcome}", flush=True)
        if outcome != "identical":
            problems.append(f"{name}: {outcome}")
    print(
        f"{kills} kills of all {study.world_size} ranks in {runs} runs; at most {most} steps lost "
        f"(a checkpoint every {interval}); {len(problems)} problems"
    )
    return problems


def main() -> None:
    """Parses the flags and runs a study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=("kills", "saves"))
    parser.add_argument("--out", type=Path, default=Path("soak"), help="folder; removed first")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--count", type=int, default=20, help="of random kills")
    parser.add_argument("--interval", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--points", help="kill only at these file events: 0,3,7")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()
    import torch

    # before the forks, which then need not import them
    import ranker.command
    import ranker.trainer  # noqa: F401

    torch.set_num_threads(1)
    interval = f"trainer.checkpoint_every_steps={options.interval}"
    study = Study([*options.overrides, interval], options.ranks, options.out)
    if options.study == "kills":
        problems = kill_at_random(study, options.count, options.interval, options.seed)
    else:
        points = [int(point) for point in options.points.split(",")] if options.points else None
        # of the second checkpoint, so that there is one to fall back to
        problems = kill_during_saves(study, 2 * options.interval, points)
    sys.exit("\n".join(problems) if problems else 0)


if __name__ == "__main__":
    main()
