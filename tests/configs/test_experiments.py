"""Every experiment composes, builds on the meta device, and trains alike on 1 and 2 ranks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ranker.job import TrainJob

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXPERIMENTS = sorted(
    path.relative_to(CONFIGS / "experiment").with_suffix("").as_posix()
    for path in (CONFIGS / "experiment").rglob("*.yaml")
)
# what a record says of the machine, not of the model
OF_THE_MACHINE = {"samples_per_second", "data_wait_fraction", "memory_gb"}

MakeJob = Callable[..., TrainJob]
Launch = Callable[..., None]


def needed_overrides(experiment: str) -> list[str]:
    """What an experiment needs to run on the small simulation, alike on 1 and 2 ranks."""
    # experiments on other data need fields and tasks that the simulation lacks
    head = [] if experiment.startswith(("synthetic", "claims/")) else ["head.task=ctr"]
    more = {
        # negatives are drawn on every rank from its own rows
        "synthetic_encoders": ["sequence.dien.auxiliary_weight=0"],
        "claims/esmm_clicked": ["trainer.monitor=cvr.auc"],
    }
    return head + more.get(experiment, [])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_composes_and_builds_on_the_meta_device(
    make_job: MakeJob, experiment: str
) -> None:
    job = make_job(f"experiment={experiment}", *needed_overrides(experiment))
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


def read_records(job: TrainJob) -> list[dict[str, Any]]:
    lines = (job.run_dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k not in OF_THE_MACHINE} for r in records]


def test_all_experiments_train_alike_on_one_and_two_ranks(
    make_job: MakeJob, launch: Launch, tmp_path: Path
) -> None:
    jobs = {}
    for experiment in EXPERIMENTS:
        name = experiment.replace("/", "_")
        overrides = [f"experiment={experiment}", *needed_overrides(experiment)]
        jobs[name] = [make_job(*overrides, f"name={name}_{ranks}") for ranks in (1, 2)]
    for ranks in (1, 2):
        launch(
            {name: pair[ranks - 1] for name, pair in jobs.items()},
            tmp_path / f"{ranks}",
            ranks=ranks,
        )
    for name, (alone, two) in jobs.items():
        expected, found = read_records(alone), read_records(two)
        assert [r["kind"] for r in found] == ["train", "train", "valid"]
        for one, other in zip(found, expected, strict=True):
            assert one.pop("kind") == other.pop("kind")
            assert one == pytest.approx(other, abs=1e-5, rel=0), name
