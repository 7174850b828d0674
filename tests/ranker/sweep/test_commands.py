import signal
import sys
from pathlib import Path

from ranker.sweep.commands import failure_reason, point_commands, start_command
from ranker.sweep.options import SweepOptions
from ranker.sweep.space import Point

POINT = Point(values={"seed": "1"})


def test_commands_of_a_point(tmp_path: Path) -> None:
    fixed = ["a=1", "plugins=[ours]"]
    options = SweepOptions(name="s", root=str(tmp_path), split="valid")
    train, evaluate = point_commands(Path("scripts"), fixed, options, POINT)
    run_dir = tmp_path / "s" / "points" / POINT.name
    arguments = [*fixed, "seed=1", f"name={POINT.name}", f"run_root={run_dir.parent}"]
    assert train == [sys.executable, "scripts/train.py", *arguments]
    assert evaluate[1:] == [
        "scripts/evaluate.py",
        f"run={run_dir}",
        "split=valid",
        "plugins=[ours]",
    ]
    options = SweepOptions(name="s", root=str(tmp_path), ranks=2)
    train, evaluate = point_commands(Path("scripts"), fixed, options, POINT)
    assert train[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert evaluate[5] == "scripts/evaluate.py"


def test_a_command_is_quiet_has_its_threads_and_ignores_what_it_shall_not_see(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    program = (
        "import os, signal; print(os.environ['OMP_NUM_THREADS'], "
        "signal.getsignal(signal.SIGUSR2).name, input())"
    )
    process = start_command(
        [sys.executable, "-c", program], log, threads=3, ignored=[signal.SIGUSR2]
    )
    # nobody is there to answer
    assert process.wait() == 1
    assert "EOFError" in failure_reason(log, 1)
    program = program.replace(", input()", "")
    again = start_command([sys.executable, "-c", program], log, threads=3, ignored=[signal.SIGUSR2])
    assert again.wait() == 0
    assert log.read_text().splitlines()[-1] == "3 SIG_IGN"


def test_what_a_failure_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for text, said in (
        ("step 1\n\nerror: no such key\n  line 2\n", "no such key\n  line 2"),
        (
            "Traceback\nZeroDivisionError: division by zero\n\n",
            "ZeroDivisionError: division by zero",
        ),
        ("\n", "it printed nothing"),
    ):
        log.write_text(text)
        assert failure_reason(log, 7) == f"exit code 7: {said}"
