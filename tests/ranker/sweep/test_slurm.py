import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ranker.sweep import slurm
from ranker.sweep.launcher import Running
from ranker.sweep.options import SweepOptions
from ranker.sweep.slurm import SlurmLauncher, SlurmPoint
from ranker.sweep.space import Point

NUMBERS = itertools.count(100, 10)
POINT = Point(values={"seed": "1"})
OTHER = Point(values={"seed": "2"})
WAIT = "import time; print('begun', flush=True); time.sleep(60)"


class Cluster:
    """A cluster that is this machine, and a sweep on it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.script = Path(__file__).with_name("fake_slurm.py")
        self.path, self.monkeypatch = path / "slurm", monkeypatch
        programs = path / "bin"
        for folder in (self.path, programs):
            folder.mkdir()
        for name in ("sbatch", "srun", "sacct", "scancel"):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {self.script} {name} "$@"\n')
            program.chmod(0o755)
        monkeypatch.setenv("FAKE_SLURM", str(self.path))
        # submitit remembers the states of jobs by their number
        self.first = next(NUMBERS)
        monkeypatch.setenv("FAKE_SLURM_FIRST", str(self.first))
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        for name in ("STATE_SECONDS", "ASK_SECONDS", "GONE_SECONDS"):
            monkeypatch.setattr(slurm, name, 0.1)
        self.options = SweepOptions(name="s", root=str(path))

    def launch(self, *programs: str, point: Point = POINT, **keys: Any) -> SlurmPoint:
        commands = [[sys.executable, "-c", program] for program in programs]
        self.monkeypatch.setattr(slurm, "point_commands", lambda *of: commands)
        launcher = SlurmLauncher(
            scripts=Path("scripts"), fixed=[], options=self.options, **{"minutes": 60, **keys}
        )
        return launcher.launch(point)

    def log(self, point: Point = POINT) -> str:
        return (self.options.directory / "logs" / f"{point.name}.log").read_text()

    def wait_for(self, text: str, times: int = 1, point: Point = POINT) -> None:
        deadline = time.monotonic() + 30
        while self.log(point).count(text) < times and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.log(point).count(text) == times

    def end(self, number: int, state: str, notice: str) -> None:
        subprocess.run(
            [
                sys.executable,
                "-I",
                str(self.script),
                "end",
                str(self.first + number - 1),
                state,
                notice,
            ],
            check=True,
        )

    def jobs(self) -> int:
        return len(list(self.path.glob("*.sh")))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def wait(point: Running) -> str:
    deadline = time.monotonic() + 60
    while (reason := point.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return reason


def test_a_job_runs_its_commands_and_says_why_it_failed(cluster: Cluster) -> None:
    good = cluster.launch("print('one')", "print('two')")
    bad = cluster.launch("print('error: no such key'); raise SystemExit(2)", point=OTHER)
    assert wait(good) == ""
    assert cluster.log() == "one\ntwo\n"
    assert wait(bad) == "exit code 2: no such key"
    assert good.seconds < 30
    # nothing is left for a later launch to take over
    assert not list(cluster.options.directory.glob("jobs/*.json"))


def test_parameters_reach_sbatch(cluster: Cluster) -> None:
    point = cluster.launch(
        "",
        minutes=90,
        gpus=2,
        cpus=8,
        memory_gb=1.5,
        partition="a100",
        account="team",
        qos="high",
        constraint="nvme",
        grace_seconds=30,
        setup=["module load cuda"],
        more={"mail-type": "END"},
    )
    assert wait(point) == ""
    lines = (cluster.path / f"{cluster.first}.sh").read_text().splitlines()
    for name, value in {
        "job-name": POINT.name,
        "time": 90,
        "nodes": 1,
        "ntasks-per-node": 1,
        "gpus-per-node": 2,
        "cpus-per-task": 8,
        "mem": "1536M",
        "partition": "a100",
        "account": "team",
        "qos": "high",
        "constraint": "nvme",
        "signal": "USR2@30",
        "mail-type": "END",
    }.items():
        assert f"#SBATCH --{name}={value}" in lines
    assert lines.index("module load cuda") < next(
        number for number, line in enumerate(lines) if line.startswith("srun")
    )


@pytest.mark.parametrize(
    ("state", "notice"),
    [("TIMEOUT", "SIGUSR2"), ("PREEMPTED", "SIGTERM"), ("NODE_FAIL", "SIGKILL")],
)
def test_a_job_that_lost_its_node_goes_on_in_another(
    cluster: Cluster, state: str, notice: str
) -> None:
    program = (
        "import pathlib, time; seen = pathlib.Path('seen').exists(); pathlib.Path('seen').touch();"
        "print('begun', flush=True); time.sleep(0 if seen else 60)"
    )
    cluster.monkeypatch.chdir(cluster.path)
    point = cluster.launch(program)
    cluster.wait_for("begun")
    cluster.end(1, state, notice)
    assert wait(point) == ""
    assert cluster.jobs() == 2
    assert cluster.log().count("begun") == 2


def test_a_point_that_never_gets_enough_time_fails(cluster: Cluster) -> None:
    point = cluster.launch(WAIT, resubmits=1)
    for job in (1, 2):
        while point.poll() is None and cluster.jobs() < job:
            time.sleep(0.05)
        cluster.wait_for("begun", times=job)
        cluster.end(job, "TIMEOUT", "SIGUSR2")
    assert wait(point) == "the cluster ended the job: TIMEOUT, for the 2. time"


def test_a_job_that_a_person_cancels_fails(cluster: Cluster) -> None:
    point = cluster.launch(WAIT)
    cluster.wait_for("begun")
    subprocess.run(["scancel", str(cluster.first)], check=True)
    assert wait(point) == "the cluster ended the job: CANCELLED BY 0"
    assert cluster.jobs() == 1


def test_a_job_that_used_too_much_memory_fails(cluster: Cluster) -> None:
    point = cluster.launch(WAIT)
    cluster.wait_for("begun")
    cluster.end(1, "OUT_OF_MEMORY", "SIGKILL")
    assert wait(point) == "the cluster ended the job: OUT_OF_MEMORY"


def test_the_next_launch_takes_over_the_job_of_one_that_was_killed(cluster: Cluster) -> None:
    program = (
        "import pathlib, time; print('begun', flush=True)\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.05)"
    )
    cluster.monkeypatch.chdir(cluster.path)
    cluster.launch(program)
    cluster.wait_for("begun")
    # the first launch is gone without a word; its job is still running, then done
    second = cluster.launch(program)
    assert second.poll() is None
    (cluster.path / "go").touch()
    assert wait(second) == ""
    assert cluster.jobs() == 1
    # one that ended while nobody looked
    cluster.launch("print('alone')", point=OTHER)
    outcome = cluster.options.directory / "jobs" / f"{OTHER.name}.outcome.json"
    while not outcome.exists():
        time.sleep(0.05)
    assert wait(cluster.launch("", point=OTHER)) == ""
    assert cluster.jobs() == 2
    # and one that the cluster forgot
    record = cluster.options.directory / "jobs" / f"{POINT.name}.json"
    record.write_text(json.dumps({"job_id": "77", "attempt": 3}))
    assert wait(cluster.launch("print('again')")) == ""
    assert cluster.jobs() == 3


def test_stopping_cancels(cluster: Cluster) -> None:
    point = cluster.launch(WAIT)
    cluster.wait_for("begun")
    point.stop()
    assert (cluster.path / f"{cluster.first}.state").read_text() == "CANCELLED by 0"
    assert wait(cluster.launch("print('fresh')")) == ""


def test_refusals(cluster: Cluster, tmp_path: Path) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"minutes": 0}, "minutes is 0"),
        ({"cpus": 0}, "cpus is 0"),
        ({"minutes": 2, "grace_seconds": 120}, "grace_seconds is 120; it must be less"),
    ]
    for keys, message in refused:
        with pytest.raises(ValueError, match=message):
            cluster.launch("", **keys)
    options = SweepOptions(name="s", root=str(tmp_path), timeout_seconds=5)
    with pytest.raises(ValueError, match=r"sweep\.launcher\.minutes"):
        SlurmLauncher(scripts=Path(), fixed=[], options=options, minutes=5)
    cluster.monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="finds no srun"):
        cluster.launch("")
