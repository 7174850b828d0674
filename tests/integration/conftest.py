"""Trains tiny runs, in this process or under torchrun."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from ranker.config import build_train_job, to_plain
from ranker.job import TrainJob
from ranker.trainer import train

TINY = [
    "dataset=prepared",
    "sequence=[mean_pool]",
    "loader.batch_size=64",
    "loader.num_streams=4",
    "loader.max_length=10",
    "head.hidden_units=[16]",
    "trainer.epochs=2",
    "trainer.log_every_steps=1",
    "trainer.checkpoint_every_steps=3",
]


class Runner:
    """Launches runs on one data set."""

    def __init__(self, data: Path, run_root: Path, project_root: Path) -> None:
        self.project_root = project_root
        self.run_root = run_root
        self.overrides = [*TINY, f"dataset.path={data}", f"run_root={run_root}"]

    def job(self, name: str, *overrides: str) -> TrainJob:
        arguments = [*self.overrides, f"name={name}", *overrides]
        with initialize_config_dir(str(self.project_root / "configs"), version_base="1.3"):
            return build_train_job(to_plain(compose("train", arguments)))

    def alone(self, name: str, *overrides: str) -> None:
        train(self.job(name, *overrides))

    def torchrun(
        self, name: str, *overrides: str, ranks: int = 2, script: str = "train"
    ) -> subprocess.CompletedProcess[str]:
        arguments = [*self.overrides, f"name={name}"] if script == "train" else []
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return subprocess.run(
            [
                *launcher,
                f"--nproc-per-node={ranks}",
                str(self.project_root / "scripts" / f"{script}.py"),
                *arguments,
                *overrides,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def records(self, name: str) -> list[dict[str, Any]]:
        lines = (self.run_root / name / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        for record in records:
            for name in ("samples_per_second", "data_wait_fraction", "memory_gb"):
                record.pop(name, None)
        return records


@pytest.fixture
def runner(tiny_dataset: Path, tmp_path: Path, project_root: Path) -> Runner:
    return Runner(tiny_dataset, tmp_path / "runs", project_root)


@pytest.fixture
def make_runner(tmp_path: Path, project_root: Path) -> Callable[[Path], Runner]:
    return lambda data: Runner(data, tmp_path / "runs", project_root)
