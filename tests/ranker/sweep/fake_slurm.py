"""sbatch, srun, sacct and scancel of a cluster that is this machine; jobs live in $FAKE_SLURM.

<id>.sh the script   <id>.state   <id>.pid of the task
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ["FAKE_SLURM"])


def sbatch(script: str) -> None:
    """Accepts a job and starts it."""
    number = int(os.environ["FAKE_SLURM_FIRST"]) + len(list(ROOT.glob("*.sh")))
    (ROOT / f"{number}.sh").write_text(Path(script).read_text())
    (ROOT / f"{number}.state").write_text("RUNNING")
    subprocess.Popen(
        [sys.executable, __file__, "run", str(number)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(f"Submitted batch job {number}")


def run(number: str) -> None:
    """The life of a job."""
    task = {"PROCID": 0, "LOCALID": 0, "NODEID": 0, "NTASKS": 1, "JOB_NUM_NODES": 1}
    environment = {f"SLURM_{name}": str(value) for name, value in task.items()}
    environment |= {"SLURM_JOB_ID": number, "SLURM_JOB_NODELIST": "node1"}
    code = subprocess.call(["bash", str(ROOT / f"{number}.sh")], env=os.environ | environment)
    state = ROOT / f"{number}.state"
    if state.read_text() == "RUNNING":
        state.write_text("FAILED" if code else "COMPLETED")


def srun(*arguments: str) -> None:
    """Becomes the task."""
    program = arguments.index("--error") + 2
    (ROOT / f"{os.environ['SLURM_JOB_ID']}.pid").write_text(str(os.getpid()))
    with Path(re.sub("%[jt]", "0", arguments[arguments.index("--output") + 1])).open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        os.execvp(arguments[program], arguments[program:])  # noqa: S606


def sacct(*_: str) -> None:
    """All jobs."""
    print("JobID|State|NodeList")
    for state in ROOT.glob("*.state"):
        print(f"{state.stem}|{state.read_text()}|node1")


def scancel(number: str) -> None:
    """A person's or the sweep's wish."""
    end(number, "CANCELLED by 0", signal.SIGTERM)


def end(number: str, state: str, notice: signal.Signals) -> None:
    """Ends a running job."""
    if (ROOT / f"{number}.state").read_text() == "RUNNING":
        (ROOT / f"{number}.state").write_text(state)
        os.kill(int((ROOT / f"{number}.pid").read_text()), notice)


def end_named(number: str, state: str, notice: str) -> None:
    """What the cluster itself may do to a job."""
    end(number, state, signal.Signals[notice])


if __name__ == "__main__":
    commands = {"sbatch": sbatch, "run": run, "srun": srun, "sacct": sacct, "scancel": scancel}
    (commands | {"end": end_named})[sys.argv[1]](*sys.argv[2:])
