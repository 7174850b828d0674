"""A sweep of real runs from its command line: killed, launched again, one point that fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ranker.sweep.state import SweepDir


def start(
    runner: Any, *overrides: str, monitors: str = "ctr.gauc,ctr.nope", **environment: str
) -> subprocess.Popen[str]:
    training = [argument for argument in runner.overrides if not argument.startswith("run_root=")]
    return subprocess.Popen(
        [
            sys.executable,
            str(runner.project_root / "scripts" / "sweep.py"),
            "-m",
            *training,
            "trainer.max_steps=2",
            # the second stops at its first evaluation: there is no such metric
            f"trainer.monitor={monitors}",
            "sweep.name=s",
            f"sweep.root={runner.run_root}",
            "sweep.num_replicates=20",
            *overrides,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_a_sweep_survives_a_kill_and_keeps_failures(runner: Any) -> None:
    directory = SweepDir(runner.run_root / "s")
    with start(runner) as first:
        deadline = time.monotonic() + 120
        while not directory.states() and time.monotonic() < deadline:
            time.sleep(0.1)
        first.send_signal(signal.SIGKILL)
    (done,) = directory.states()
    assert done.state == "finished", done.reason
    with start(runner) as second:
        output, _ = second.communicate(timeout=180)
    assert second.returncode == 0, output
    assert "1 of 2: trainer.monitor=ctr.gauc: finished in an earlier launch" in output
    states = {state.values["trainer.monitor"]: state for state in directory.states()}
    assert states["ctr.nope"].state == "failed"
    assert "trainer.monitor is 'ctr.nope'" in states["ctr.nope"].reason
    report = json.loads((directory.path / "sweep.json").read_text())
    assert [point["state"] for point in report["sweep"]["points"]] == ["finished", "failed"]
    assert "trainer.monitor=ctr.gauc has" in report["summary"][0]


def test_points_run_as_jobs_of_a_cluster(runner: Any, tmp_path: Path) -> None:
    fake = runner.project_root / "tests" / "ranker" / "sweep" / "fake_slurm.py"
    programs, cluster = tmp_path / "bin", tmp_path / "slurm"
    programs.mkdir()
    cluster.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -I {fake} {name} "$@"\n')
        (programs / name).chmod(0o755)
    with start(
        runner,
        "sweep/launcher=slurm",
        "sweep.launcher.minutes=30",
        "sweep.workers=2",
        PATH=f"{programs}:{os.environ['PATH']}",
        FAKE_SLURM=str(cluster),
        FAKE_SLURM_FIRST="7",
    ) as sweep:
        output, _ = sweep.communicate(timeout=180)
    assert sweep.returncode == 0, output
    states = {s.values["trainer.monitor"]: s for s in SweepDir(runner.run_root / "s").states()}
    assert states["ctr.gauc"].state == "finished", states["ctr.gauc"].reason
    assert "trainer.monitor is 'ctr.nope'" in states["ctr.nope"].reason
    assert {state.read_text() for state in cluster.glob("*.state")} == {"COMPLETED"}
    assert (runner.run_root / "s" / "sweep.html").is_file()
