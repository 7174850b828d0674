"""What a point runs: its commands, how one is started, and what one that failed had to say."""

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ranker.sweep.options import SweepOptions
from ranker.sweep.space import Point
from ranker.sweep.state import SweepDir

_SET_PARENT_DEATH_SIGNAL = 1


def point_commands(
    scripts: Path, fixed: Sequence[str], options: SweepOptions, point: Point
) -> list[list[str]]:
    """Training and then evaluation, each under torchrun if the point has several ranks.

    Args:
        scripts: folder with train.py and evaluate.py.
        fixed: overrides of every point.
        options: of the sweep.
        point: to run.
    """
    run = SweepDir(options.directory).run(point)
    # Hydra takes the last of two overrides of one key, so a point wins over what is fixed
    training = [*fixed, *point.overrides, f"name={run.name}", f"run_root={run.parent}"]
    plugins = [override for override in fixed if override.startswith("plugins=")]
    evaluation = [f"run={run}", f"split={options.split}", *plugins]
    launcher = [sys.executable]
    if options.ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--nproc-per-node={options.ranks}"]
    return [
        [*launcher, str(scripts / "train.py"), *training],
        [*launcher, str(scripts / "evaluate.py"), *evaluation],
    ]


def start_command(
    command: Sequence[str], log: Path, *, threads: int, ignored: Sequence[signal.Signals] = ()
) -> subprocess.Popen[bytes]:
    """Starts one command; what it prints is added to the log.

    Args:
        command: program and arguments.
        log: file, in a folder that exists.
        threads: OpenMP threads.
        ignored: signals that the command shall not see.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
            # a killed sweep must not leave runs behind that hold their directories
            preexec_fn=_before_start(ignored) if sys.platform == "linux" else None,
        )


def _before_start(ignored: Sequence[signal.Signals]) -> Callable[[], None]:
    def prepare() -> None:
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    return prepare


def failure_reason(log: Path, code: int) -> str:
    """What a command said when it failed: its error block, or the last line of a traceback."""
    text = log.read_text(encoding="utf-8", errors="replace")
    blocks = re.findall(r"^error: (.*)\Z", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if line.strip()]
    said = blocks[-1].strip() if blocks else (lines[-1].strip() if lines else "it printed nothing")
    return f"exit code {code}: {said}"
