"""What runs on a node of the cluster: the commands of a point, and how they ended, as a file."""

import json
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from ranker.report.files import replace_file
from ranker.sweep.commands import failure_reason, start_command

# SLURM announces the end of a job with it, because submitit asks for that
NOTICE = signal.SIGUSR2


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended, in its own words; a job that was killed leaves none."""

    end: Literal["finished", "failed", "interrupted"]
    seconds: float
    reason: str = ""


def read_outcome(path: Path) -> Outcome | None:
    """The outcome in a file, None if it is not there."""
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


@dataclass(kw_only=True)
class PointJob:
    """Runs commands in turn until one fails or the cluster wants its node back.

    Attributes:
        commands: program and arguments of each.
        log: file for what they print.
        outcome: file for how it ended.
        threads: OpenMP threads of each process.
    """

    commands: list[list[str]]
    log: Path
    outcome: Path
    threads: int

    def __post_init__(self) -> None:
        self._interrupted: signal.Signals | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Runs on the node."""
        started = time.monotonic()
        # before the end of its time, and when a job of higher priority needs the node
        for number in (NOTICE, signal.SIGTERM):
            signal.signal(number, self._interrupt)
        found = Outcome(end="finished", seconds=0.0)
        for command in self.commands:
            # a notice is for us: a program without a handler would die of it
            self._process = start_command(command, self.log, threads=self.threads, ignored=[NOTICE])
            code = self._process.wait()
            if self._interrupted is not None:
                reason = f"the cluster sent {self._interrupted.name}"
                found = Outcome(end="interrupted", seconds=0.0, reason=reason)
                break
            if code != 0:
                found = Outcome(end="failed", seconds=0.0, reason=failure_reason(self.log, code))
                break
        seconds = round(time.monotonic() - started, 1)
        with replace_file(self.outcome) as temporary:
            temporary.write_text(json.dumps(asdict(found) | {"seconds": seconds}), encoding="utf-8")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ends the running command, which goes on from its checkpoint in the next job."""
        del frame
        self._interrupted = signal.Signals(number)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
