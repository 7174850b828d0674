import functools
from pathlib import Path

import pytest

from ranker.config_reader import ConfigError
from ranker.sweep.local import LocalLauncher
from ranker.sweep.optuna_search import OptunaSearch
from ranker.sweep.run import SweepJob
from ranker.sweep.search import Grid
from ranker.sweep.slurm import SlurmLauncher
from ranker.sweep.space import Parameter
from ranker.sweep_config import build_sweep

BASE = ["dataset=prepared", "loader.num_streams=4", "sweep.name=s"]


@pytest.fixture
def base(tiny_dataset: Path) -> list[str]:
    return [*BASE, f"dataset.path={tiny_dataset}"]


def build(project_root: Path, arguments: list[str]) -> SweepJob:
    return build_sweep(arguments, project_root / "configs")


def test_commas_make_parameters_and_the_rest_is_fixed(
    project_root: Path, base: list[str], tiny_dataset: Path
) -> None:
    job = build(
        project_root,
        [
            *base,
            "sequence=mean_pool,[mean_pool,din]",
            "optimizer.dense_lr=1e-3,3e-4",
            "seed=range(3)",
            "sweep.workers=2",
        ],
    )
    assert job.parameters == [
        Parameter(key="sequence", choices=["mean_pool", "[mean_pool,din]"]),
        Parameter(key="optimizer.dense_lr", choices=["0.001", "0.0003"]),
        Parameter(key="seed", choices=["0", "1", "2"]),
    ]
    assert job.fixed == [
        "dataset=prepared",
        "loader.num_streams=4",
        f"dataset.path={tiny_dataset}",
    ]
    assert job.options.workers == 2
    assert isinstance(job.search, Grid)


def test_ranges_for_a_search(project_root: Path, base: list[str]) -> None:
    job = build(
        project_root,
        [
            *base,
            "sweep=optuna",
            "sweep.search.num_points=3",
            "optimizer.dense_lr=tag(log,interval(1e-4,1e-2))",
            "head.dropout=interval(0,0.5)",
            "trainer.epochs=int(interval(1,3))",
        ],
    )
    assert job.parameters == [
        Parameter(key="optimizer.dense_lr", low=1e-4, high=1e-2, log=True),
        Parameter(key="head.dropout", low=0, high=0.5),
        Parameter(key="trainer.epochs", low=1, high=3, integer=True),
    ]
    assert isinstance(job.search, OptunaSearch)
    assert job.search.num_points == 3
    assert job.options.split == "valid"


def test_launchers(project_root: Path, base: list[str]) -> None:
    runtime = {"scripts": project_root / "scripts", "fixed": [], "options": None}
    assert isinstance(build(project_root, base).launcher(**runtime), LocalLauncher)
    arguments = [*base, "sweep/launcher=slurm", "sweep.launcher.partition=gpu"]
    job = build(project_root, [*arguments, "+sweep.launcher.more.mail-type=END"])
    assert job.parameters == []
    assert isinstance(job.launcher, functools.partial)
    assert SlurmLauncher in job.launcher.args
    assert job.launcher.keywords["partition"] == "gpu"
    assert job.launcher.keywords["more"] == {"mail-type": "END"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep/launcher=slurm", "sweep.launcher.gpu=1"], r"sweep\.launcher\.gpu"),
        (["sweep.launcher=slurm"], r"sweep\.launcher is a group; write sweep/launcher=slurm"),
        (["name=a,b"], r"name is set by the sweep for every point; give sweep\.name"),
        (["seed=0,0"], "seed lists 0; list each value once"),
        (["optimizer.dense_lr=1e-3,fast"], r"at optimizer\.dense_lr=fast: .*must be a number"),
        (["optimizer.dense_lrr=1,2"], r"dense_lrr"),
        (["sweep.worker=2"], r"worker"),
        (["sweep.objective=auc"], r"'auc' is no task\.metric"),
        (["sweep.search.num_points=3"], "num_points"),
        (["optimizer.dense_lr=tag(log,interval(0,1))"], "must begin above 0"),
        (["optimizer.dense_lr=interval(2,1)"], "empty"),
        (["seed=choice(1"], "cannot be read"),
    ],
)
def test_each_problem_is_named(
    project_root: Path, base: list[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"(?s){message}"):
        build(project_root, [*base, *arguments])


def test_a_sweep_needs_a_name(project_root: Path, base: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.name must be given"):
        build(project_root, [a for a in base if not a.startswith("sweep.name")])
