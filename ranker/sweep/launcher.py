"""One point as processes of its own: training, then evaluation."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ranker.sweep.options import SweepOptions
from ranker.sweep.space import Point
from ranker.sweep.state import SweepDir

# how long a process may take to end after it was told to
GRACE_SECONDS = 20.0

_SET_PARENT_DEATH_SIGNAL = 1


class Running(Protocol):
    """A point whose processes are running."""

    point: Point

    def poll(self) -> str | None:
        """None while it runs, "" when all is done, else the reason of its failure."""
        ...

    def stop(self) -> None:
        """Ends its processes, and waits for that."""
        ...

    @property
    def seconds(self) -> float:
        """Since its start."""
        ...


class Launcher(Protocol):
    """Starts points."""

    def launch(self, point: Point) -> Running:
        """Starts the processes of a point."""
        ...


class LocalLauncher:
    """Processes on this machine.

    Args:
        scripts: folder with train.py and evaluate.py.
        fixed: overrides of every point.
        options: of the sweep.
    """

    def __init__(self, *, scripts: Path, fixed: Sequence[str], options: SweepOptions) -> None:
        self.scripts, self.fixed, self.options = scripts, list(fixed), options
        self.directory = SweepDir(options.directory)

    def launch(self, point: Point) -> "LocalPoint":
        """Starts training; evaluation follows by itself when `poll` sees the end of it."""
        run = self.directory.run(point)
        # Hydra takes the last of two overrides of one key, so a point wins over what is fixed
        training = [*self.fixed, *point.overrides, f"name={run.name}", f"run_root={run.parent}"]
        evaluation = [f"run={run}", f"split={self.options.split}"]
        plugins = [override for override in self.fixed if override.startswith("plugins=")]
        commands = [
            self._command("train.py", training),
            self._command("evaluate.py", [*evaluation, *plugins]),
        ]
        return LocalPoint(point, commands, self.directory.log(point), self.options)

    def _command(self, script: str, arguments: Sequence[str]) -> list[str]:
        program = [str(self.scripts / script), *arguments]
        if self.options.ranks == 1:
            return [sys.executable, *program]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*launcher, f"--nproc-per-node={self.options.ranks}", *program]


class LocalPoint:
    """The processes of a point, one after the other; their output goes to one log.

    Args:
        point: that they train and evaluate.
        commands: to run in turn.
        log: file for what they print.
        options: of the sweep.
    """

    def __init__(
        self, point: Point, commands: Sequence[Sequence[str]], log: Path, options: SweepOptions
    ) -> None:
        self.point, self.log, self.options = point, log, options
        self._commands = list(commands)
        self._started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")
        self._process = self._start()

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._started

    def poll(self) -> str | None:
        """None while it runs, "" when all is done, else the reason of its failure."""
        code = self._process.poll()
        limit = self.options.timeout_seconds
        if code is None and limit is not None and self.seconds > limit:
            self.stop()
            return f"took longer than sweep.timeout_seconds={limit:g}"
        if code is None:
            return None
        if code != 0:
            return _reason(self.log.read_text(encoding="utf-8", errors="replace"), code)
        if self._commands:
            self._process = self._start()
            return None
        return ""

    def stop(self) -> None:
        """Ends its processes, and waits for that."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        threads = str(self.options.threads)
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self._commands.pop(0),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"},
                # a killed sweep must not leave runs behind that hold their directories
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _reason(log: str, code: int) -> str:
    """What a command said when it failed: its error block, or the last line of a traceback."""
    blocks = re.findall(r"^error: (.*)\Z", log, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in log.splitlines() if line.strip()]
    said = blocks[-1].strip() if blocks else (lines[-1].strip() if lines else "it printed nothing")
    return f"exit code {code}: {said}"
