"""Points as processes of this machine: training, then evaluation."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from ranker.sweep.commands import failure_reason, point_commands, start_command
from ranker.sweep.options import SweepOptions
from ranker.sweep.space import Point
from ranker.sweep.state import SweepDir

# how long a process may take to end after it was told to
GRACE_SECONDS = 20.0


class LocalLauncher:
    """Processes on this machine.

    Args:
        scripts: folder with train.py and evaluate.py.
        fixed: overrides of every point.
        options: of the sweep.
    """

    def __init__(self, *, scripts: Path, fixed: Sequence[str], options: SweepOptions) -> None:
        self.scripts, self.fixed, self.options = scripts, list(fixed), options

    def launch(self, point: Point) -> "LocalPoint":
        """Starts training; evaluation follows by itself when `poll` sees the end of it."""
        commands = point_commands(self.scripts, self.fixed, self.options, point)
        log = SweepDir(self.options.directory).log(point)
        return LocalPoint(point, commands, log, self.options)


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
            return failure_reason(self.log, code)
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
        return start_command(self._commands.pop(0), self.log, threads=self.options.threads)
