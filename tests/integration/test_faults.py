"""What goes wrong on two ranks: how it ends, who says what, and that nothing is lost."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ranker.checkpoint_files import choose, list_checkpoints
from ranker.checkpoint_tensors import read_tensors, tensor_shapes
from ranker.modules.dual_ascent import DualOptions
from ranker_data.layout import samples_path

# the fault strikes at the fifth step; checkpoints are of steps 3, 5 (an evaluation), 6, 9 and 10
KEPT = 3


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the ranks of a run ended."""

    codes: list[int]
    output: str
    status: dict[str, Any]


class Faults:
    """Runs two ranks with something wrong."""

    def __init__(self, project_root: Path) -> None:
        self._undisturbed: list[dict[str, Any]] | None = None
        paths = [project_root, project_root / "data", project_root / "kernels"]
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fault_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(map(str, paths)),
            },
        )

    def run(self, runner: Any, name: str, fault: str, *overrides: str) -> Outcome:
        log = runner.run_root / f"{name}.log"
        request = {
            "overrides": [*runner.overrides, f"name={name}", *overrides],
            "ranks": 2,
            "fault": fault,
            "log": str(log),
        }
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        begin = log.stat().st_size if log.exists() else 0
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        codes = json.loads(self.server.stdout.readline())
        status = json.loads((runner.run_root / name / "status.json").read_text())
        return Outcome(codes, log.read_text()[begin:], status)

    def undisturbed(self, runner: Any) -> list[dict[str, Any]]:
        """The records of a run in which nothing goes wrong; all runners have the same data."""
        if self._undisturbed is None:
            assert self.run(runner, "undisturbed", "none").codes == [0, 0]
            self._undisturbed = runner.records("undisturbed")
        return self._undisturbed

    def close(self) -> None:
        self.server.communicate(timeout=60)
        assert self.server.returncode == 0


@pytest.fixture(scope="module")
def faults(project_root: Path) -> Iterator[Faults]:
    server = Faults(project_root)
    yield server
    server.close()


def kept_steps(runner: Any, name: str) -> list[str]:
    return [path.name for path in list_checkpoints(runner.run_root / name / "checkpoints")]


def assert_goes_on_as_if_nothing_happened(faults: Faults, runner: Any, name: str) -> None:
    assert faults.run(runner, name, "none").codes == [0, 0]
    assert runner.records(name) == faults.undisturbed(runner)


def test_a_rank_that_is_killed_is_named_and_the_run_goes_on(faults: Faults, runner: Any) -> None:
    outcome = faults.run(runner, "run", "killed")
    assert outcome.codes == [6, -9]
    assert outcome.output.count("error: rank 1 is gone") == 1
    assert "Traceback" not in outcome.output
    assert f"The last checkpoint is step {KEPT}" in outcome.output
    assert outcome.status["state"] == "failed"
    assert (outcome.status["exit_code"], outcome.status["resumable"]) == (6, True)
    assert outcome.status["last_checkpoint"] == KEPT
    assert_goes_on_as_if_nothing_happened(faults, runner, "run")


def test_the_death_of_rank_0_is_told_by_another(faults: Faults, runner: Any) -> None:
    outcome = faults.run(runner, "run", "main killed")
    assert outcome.codes == [-9, 6]
    assert outcome.output.count("error: rank 0 is gone") == 1
    assert outcome.status["state"] == "failed"


@pytest.mark.parametrize(("fault", "name"), [("terminated", "SIGTERM"), ("user signal", "SIGUSR1")])
def test_a_signal_to_one_rank_stops_all_at_one_step(
    faults: Faults, runner: Any, fault: str, name: str
) -> None:
    outcome = faults.run(runner, "run", fault, "trainer.eval_every_steps=5")
    assert outcome.codes == [75, 75]
    step = outcome.status["step"]
    assert f"stopped: {name} at step {step}, which is saved" in outcome.output
    assert (outcome.status["state"], outcome.status["last_checkpoint"]) == ("preempted", step)
    assert kept_steps(runner, "run")[-1] == f"step-{step:08d}"
    # the evaluation that was due at the step of the stop is made up for
    assert faults.run(runner, "run", "none", "trainer.eval_every_steps=5").codes == [0, 0]
    whole = faults.run(runner, "whole", "none", "trainer.eval_every_steps=5")
    assert (whole.status["state"], whole.status["step"]) == ("finished", 10)
    assert runner.records("run") == runner.records("whole")


def test_a_second_sigterm_ends_a_rank_at_once(faults: Faults, runner: Any) -> None:
    outcome = faults.run(runner, "run", "terminated twice", "trainer.timeout_seconds=20")
    assert outcome.codes == [6, -15]


def test_ctrl_c_saves_nothing(faults: Faults, runner: Any) -> None:
    outcome = faults.run(runner, "run", "interrupted")
    assert outcome.codes == [130, 130]
    assert outcome.output.count("error: interrupted") == 1
    assert outcome.status["state"] == "interrupted"
    assert kept_steps(runner, "run")[-1] == f"step-{KEPT:08d}"


def test_an_error_of_one_rank_is_told_once_by_that_rank(faults: Faults, runner: Any) -> None:
    outcome = faults.run(runner, "run", "bad row")
    assert outcome.codes == [3, 3]
    assert outcome.output.count("error: ") == 1
    assert "error: rank 1: part-00003.parquet: row 17 is bad" in outcome.output
    assert "GLHF" not in outcome.output
    assert outcome.status["reason"] == "rank 1: part-00003.parquet: row 17 is bad"


def test_a_bug_of_one_rank_shows_its_traceback_alone(faults: Faults, runner: Any) -> None:
    outcome = faults.run(runner, "run", "bug")
    assert outcome.codes == [1, 1]
    assert outcome.output.count("Traceback") == 1
    assert "ZeroDivisionError: a bug of rank 1" in outcome.output


def test_a_data_worker_that_is_killed_is_named_and_the_run_goes_on(
    faults: Faults, runner: Any
) -> None:
    cache = runner.run_root / "cache"
    workers = (f"loader.cache_dir={cache}", "loader.num_workers=1", "loader.prefetch=1")
    outcome = faults.run(runner, "run", "workers killed", *workers)
    assert outcome.codes == [3, 3]
    assert outcome.output.count("error: ") == 1
    assert "SIGKILL" in outcome.output
    assert_goes_on_as_if_nothing_happened(faults, runner, "run")


def test_a_rank_that_hangs_is_named_and_ended(faults: Faults, runner: Any) -> None:
    outcome = faults.run(runner, "run", "hang", "trainer.timeout_seconds=3")
    assert outcome.codes == [6, 6]
    assert "error: rank 1 hangs: at step 4, in a training step for" in outcome.output
    stack = (runner.run_root / "run" / "debug" / "stack-rank-1.txt").read_text()
    assert "in hang" in stack


def test_a_broken_loss_stops_all_ranks_before_a_save(faults: Faults, runner: Any) -> None:
    outcome = faults.run(runner, "run", "broken loss")
    assert outcome.codes == [5, 5]
    assert outcome.output.count("error: the loss is not finite at step 5") == 1
    assert kept_steps(runner, "run")[-1] == f"step-{KEPT:08d}"
    folder = runner.run_root / "run" / "debug" / "step-5"
    rows = pq.read_table(folder / "batch-5-rank-1.parquet")
    assert {"sample_id", "label.click", "dense.price"} <= set(rows.column_names)
    assert rows.num_rows + pq.read_table(folder / "batch-5-rank-0.parquet").num_rows == 64


def test_a_disk_that_fills_up_ends_the_run_only_after_some_tries(
    faults: Faults, runner: Any
) -> None:
    # the first save after the fault is at step 5, then 6 and 9
    outcome = faults.run(runner, "run", "disk full")
    assert outcome.codes == [4, 4]
    assert outcome.output.count("training goes on (failed") == 2
    assert "File too large" in outcome.output
    assert "older checkpoints are untouched" in outcome.output
    assert kept_steps(runner, "run") == [f"step-{KEPT:08d}"]
    assert not list((runner.run_root / "run" / "checkpoints").glob(".tmp-*"))
    assert_goes_on_as_if_nothing_happened(faults, runner, "run")


def test_a_save_that_fails_on_one_rank_fails_on_all(faults: Faults, runner: Any) -> None:
    outcome = faults.run(runner, "run", "failing saves", "trainer.max_failed_saves=0")
    assert outcome.codes == [4, 4]
    assert outcome.output.count("no space on rank 1") == 1


@pytest.mark.parametrize("fault", ["killed", "terminated"])
def test_a_save_behind_the_training_loses_nothing(faults: Faults, runner: Any, fault: str) -> None:
    outcome = faults.run(runner, "run", fault, "trainer.async_checkpoint=true")
    assert 0 not in outcome.codes
    assert faults.run(runner, "run", "none", "trainer.async_checkpoint=true").codes == [0, 0]
    assert runner.records("run") == faults.undisturbed(runner)


def launch_torchrun(runner: Any, name: str, *overrides: str, script: Path, restarts: int) -> Any:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    paths = [runner.project_root, runner.project_root / "data", runner.project_root / "kernels"]
    return subprocess.Popen(
        [
            *launcher,
            "--nproc-per-node=2",
            f"--max-restarts={restarts}",
            str(script),
            *runner.overrides,
            f"name={name}",
            *overrides,
        ],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_torchrun_restarts_go_on_by_themselves(faults: Faults, runner: Any) -> None:
    script = Path(__file__).with_name("killed_once.py")
    process = launch_torchrun(runner, "run", script=script, restarts=1)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert f"resuming {runner.run_root / 'run'} at step {KEPT}" in output
    assert runner.records("run") == faults.undisturbed(runner)


def test_sigterm_to_torchrun_preempts_within_25_seconds(runner: Any) -> None:
    script = runner.project_root / "scripts" / "train.py"
    overrides = ["trainer.epochs=100000", "trainer.checkpoint_every_steps=100000"]
    process = launch_torchrun(runner, "run", *overrides, script=script, restarts=0)
    status = runner.run_root / "run" / "status.json"
    try:
        while not status.exists() or json.loads(status.read_text())["step"] == 0:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.2)
    finally:
        since = time.monotonic()
        process.terminate()
        output, _ = process.communicate(timeout=100)
    assert time.monotonic() - since < 25, output
    found = json.loads(status.read_text())
    assert (found["state"], found["exit_code"], found["resumable"]) == ("preempted", 75, True)
    assert kept_steps(runner, "run")[-1] == f"step-{found['step']:08d}"


def test_ranks_without_rows_neither_hang_nor_lose_any(
    faults: Faults,
    make_runner: Callable[[Path], Any],
    make_tiny_dataset: Callable[..., Path],
    tmp_path: Path,
) -> None:
    # all rows of the validation split, and most of the training, belong to rank 0
    data = make_tiny_dataset(tmp_path / "data")
    for split, parts in (("valid", (1, 2, 3)), ("train", (1, 3))):
        for part in parts:
            path = samples_path(data, split, part)
            pq.write_table(pq.read_table(path).slice(0, 0), path, write_page_checksum=True)
    runner = make_runner(data)
    overrides = ["loader.batch_size=16", "trainer.timeout_seconds=60"]
    assert faults.run(runner, "two", "none", *overrides).codes == [0, 0]
    runner.alone("one", *overrides)
    two, one = runner.records("two")[-1], runner.records("one")[-1]
    assert two["step"] == one["step"]
    assert two["ctr.logloss"] == pytest.approx(one["ctr.logloss"], abs=1e-6)


def test_kills_around_a_save_end_bit_identical(
    runner: Any, tmp_path: Path, project_root: Path
) -> None:
    # constraints from the first step on, whose multipliers are compared with everything else
    held = [
        "head=shared_bottom",
        "head.bottom_units=[8]",
        "head.towers.hidden_units=[4]",
        "head.towers.predict=[ctr,cvr]",
        "objective=lagrangian",
        "objective.priority=[ctr,cvr]",
        "objective.mode=simultaneous",
        "+objective.references={ctr: 0.3}",
        "objective.constraints.every_steps=1",
        "objective.constraints.num_batches=2",
        "trainer.monitor=ctr.auc",
    ]
    common = (o for o in runner.overrides if not o.startswith(("run_root", "head.")))
    paths = [project_root, project_root / "data", project_root / "kernels"]
    done = subprocess.run(
        [
            sys.executable,
            str(project_root / "scripts" / "soak.py"),
            "saves",
            f"--out={tmp_path / 'soak'}",
            "--interval=2",
            # rank 0 while it writes its shard and just before it gives the checkpoint its name
            "--points=2,11",
            *common,
            *held,
            "trainer.epochs=1",
        ],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        },
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "os.rename .tmp-step-00000004" in done.stdout
    assert done.stdout.count(", identical") >= 3
    last = choose(tmp_path / "soak" / "undisturbed" / "checkpoints", "last")
    (name,) = (name for name in tensor_shapes(last) if name.endswith("ascent.multipliers"))
    # it began at objective.dual.initial
    assert read_tensors(last, [name])[name][0] > DualOptions().initial
