import subprocess
import sys
import time
from pathlib import Path

import pytest

from ranker.sweep.launcher import Running
from ranker.sweep.local import LocalLauncher, LocalPoint
from ranker.sweep.options import SweepOptions
from ranker.sweep.space import Point

POINT = Point(values={"seed": "1"})


def run(tmp_path: Path, *programs: str, timeout: float | None = None) -> LocalPoint:
    commands = [[sys.executable, "-c", program] for program in programs]
    options = SweepOptions(name="x", root=str(tmp_path), timeout_seconds=timeout)
    return LocalPoint(POINT, commands, tmp_path / "logs" / "p.log", options)


def wait(point: Running) -> str:
    while (reason := point.poll()) is None:
        time.sleep(0.02)
    return reason


def test_commands_run_in_turn_into_one_log(tmp_path: Path) -> None:
    program = "import os; print('threads', os.environ['OMP_NUM_THREADS'])"
    point = run(tmp_path, program, "print('second')")
    assert wait(point) == ""
    assert point.log.read_text() == "threads 1\nsecond\n"


def test_a_failure_ends_the_point_with_its_reason(tmp_path: Path) -> None:
    program = "import sys; print('\\nerror: no such key\\n  line 2'); sys.exit(2)"
    point = run(tmp_path, program, "print('never')")
    assert wait(point) == "exit code 2: no such key\n  line 2"
    assert "never" not in point.log.read_text()
    assert wait(run(tmp_path, "1 / 0")) == "exit code 1: ZeroDivisionError: division by zero"
    assert wait(run(tmp_path, "import os; os._exit(3)")) == "exit code 3: it printed nothing"


def test_a_point_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    point = run(tmp_path, "import time; time.sleep(60)", timeout=0.2)
    assert wait(point) == "took longer than sweep.timeout_seconds=0.2"


@pytest.mark.skipif(sys.platform != "linux", reason="parents' deaths are signalled on Linux only")
def test_a_killed_sweep_takes_its_points_with_it(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from ranker.sweep.local import LocalPoint; from ranker.sweep.options import *\n"
        "from ranker.sweep.space import Point\n"
        f"log = Path({str(tmp_path)!r}) / 'p.log'\n"
        "sleep = [sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); "
        "time.sleep(60)']\n"
        "LocalPoint(Point(), [sleep], log, SweepOptions(name='x')); time.sleep(60)\n"
    )
    log = tmp_path / "p.log"
    with subprocess.Popen([sys.executable, "-c", program]) as sweep:
        while not log.exists() or not log.read_text().strip():
            time.sleep(0.05)
        sweep.kill()
    child = int(log.read_text())
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child), "the point outlived the sweep"


def is_running(process: int) -> bool:
    """Whether a process exists and is no zombie, which waits only for its parent to look."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "Z" not in status.split(")")[1]


def test_a_launcher_starts_the_commands_of_a_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commands(*of: object) -> list[list[str]]:
        return [[sys.executable, "-c", f"print({str(of[3])!r})"]]

    monkeypatch.setattr("ranker.sweep.local.point_commands", commands)
    options = SweepOptions(name="s", root=str(tmp_path))
    point = LocalLauncher(scripts=Path("scripts"), fixed=[], options=options).launch(POINT)
    assert wait(point) == ""
    assert (tmp_path / "s" / "logs" / f"{POINT.name}.log").read_text() == f"{POINT}\n"
