"""Every experiment composes and builds; the ones that combine most train on 1 and 2 ranks."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ranker.job import TrainJob
from ranker.trainer import train

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXPERIMENTS = sorted(
    path.relative_to(CONFIGS / "experiment").with_suffix("").as_posix()
    for path in (CONFIGS / "experiment").rglob("*.yaml")
)
# the combinations that reach every kind of slot
TRAINED = [
    "synthetic_pepnet",
    "synthetic_mmoe",
    "synthetic_ple",
    "synthetic_escm2_dr",
    "synthetic_square_auc",
]

MakeJob = Callable[..., TrainJob]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_composes_and_builds_on_the_meta_device(
    make_job: MakeJob, experiment: str
) -> None:
    # experiments on other data need fields and tasks that the simulation lacks
    head = [] if experiment.startswith(("synthetic", "claims/")) else ["head.task=ctr"]
    job = make_job(f"experiment={experiment}", *head)
    with torch.device("meta"):
        module = job.build_module()
    assert all(parameter.is_meta for parameter in module.parameters())


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("*/**/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_config_opens_with_a_line_that_says_what_it_is(path: Path) -> None:
    lines = path.read_text().splitlines()
    comment = lines[1] if lines[0] == "# @package _global_" else lines[0]
    assert comment.startswith("# ")
    assert yaml.safe_load(path.read_text())


def launch(jobs: dict[str, TrainJob], folder: Path, ranks: int) -> None:
    """Trains each job under torchrun, all in one launch."""
    folder.mkdir()
    for name, job in jobs.items():
        (folder / f"{name}.json").write_text(json.dumps(job.config))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            f"--nproc-per-node={ranks}",
            str(Path(__file__).with_name("train_all.py")),
            str(folder),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def read_records(job: TrainJob) -> list[dict[str, Any]]:
    lines = (job.run_dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k != "samples_per_second"} for r in records]


def test_combinations_train_alike_on_one_and_two_ranks(make_job: MakeJob, tmp_path: Path) -> None:
    alone = {name: make_job(f"experiment={name}", f"name={name}_alone") for name in TRAINED}
    two = {name: make_job(f"experiment={name}", f"name={name}_two") for name in TRAINED}
    for job in alone.values():
        train(job)
    launch(two, tmp_path / "jobs", ranks=2)
    for name in TRAINED:
        expected, found = read_records(alone[name]), read_records(two[name])
        assert [r["kind"] for r in found] == ["train", "train", "valid"]
        for one, other in zip(found, expected, strict=True):
            assert one.pop("kind") == other.pop("kind")
            assert one == pytest.approx(other, abs=1e-5, rel=0), name
