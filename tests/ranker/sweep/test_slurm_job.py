import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ranker.sweep.slurm_job import PointJob, read_outcome


@pytest.fixture(autouse=True)
def restore_signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def job(path: Path, *programs: str) -> PointJob:
    return PointJob(
        commands=[[sys.executable, "-c", program] for program in programs],
        log=path / "log",
        outcome=path / "outcome.json",
        threads=1,
    )


def test_commands_in_turn_until_one_fails(tmp_path: Path) -> None:
    found = job(tmp_path, "print(1)", "print('error: two'); raise SystemExit(3)", "print('never')")
    assert read_outcome(found.outcome) is None
    found()
    assert (tmp_path / "log").read_text() == "1\nerror: two\n"
    outcome = read_outcome(found.outcome)
    assert outcome is not None
    assert (outcome.end, outcome.reason) == ("failed", "exit code 3: two")
    assert 0 < outcome.seconds < 30
    job(tmp_path, "")()
    outcome = read_outcome(found.outcome)
    assert outcome is not None
    assert (outcome.end, outcome.reason) == ("finished", "")


@pytest.mark.parametrize("notice", [signal.SIGUSR2, signal.SIGTERM])
def test_a_notice_ends_the_command_and_skips_the_rest(
    tmp_path: Path, notice: signal.Signals
) -> None:
    found = job(
        tmp_path, "print('begun', flush=True); import time; time.sleep(60)", "print('never')"
    )

    def announce() -> None:
        while not (tmp_path / "log").is_file() or "begun" not in (tmp_path / "log").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), notice)

    watcher = threading.Thread(target=announce)
    watcher.start()
    found()
    watcher.join()
    outcome = read_outcome(found.outcome)
    assert outcome is not None
    assert (outcome.end, outcome.reason) == ("interrupted", f"the cluster sent {notice.name}")
    assert outcome.seconds < 30
    assert (tmp_path / "log").read_text() == "begun\n"
