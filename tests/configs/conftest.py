"""A small simulated data set, and configs composed for it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from ranker.config import build_train_job, to_plain
from ranker.job import TrainJob
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.frequencies import write_frequencies
from ranker_data.simulator.world import WorldConfig

SMALL = [
    "loader.batch_size=128",
    "loader.num_streams=4",
    "trainer.max_steps=2",
    "trainer.log_every_steps=1",
    "trainer.device=cpu",
    "trainer.monitor=ctr.auc",
]


@pytest.fixture(scope="session")
def small_simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = WorldConfig(
        num_users=100, num_items=100, num_categories=10, events_per_user=20, requests_per_user=4
    )
    out = tmp_path_factory.mktemp("simulated") / "data"
    schema = SyntheticConverter(world=world, num_parts=4).prepare(None, out)
    # what regularizer=[mba] reads
    write_frequencies(out, schema, max_length=50)
    return out


JobMaker = Callable[..., TrainJob]


@pytest.fixture(scope="session")
def make_job_in(small_simulation: Path, project_root: Path) -> Callable[[Path], JobMaker]:
    """Makes jobs whose runs lie in a folder."""

    def make_in(run_root: Path) -> JobMaker:
        def make(*overrides: str) -> TrainJob:
            paths = [f"dataset.path={small_simulation}", f"run_root={run_root}"]
            with initialize_config_dir(str(project_root / "configs"), version_base="1.3"):
                composed = compose("train", [*SMALL, *paths, *overrides])
            return build_train_job(to_plain(composed))

        return make

    return make_in


@pytest.fixture
def make_job(make_job_in: Callable[[Path], JobMaker], tmp_path: Path) -> JobMaker:
    return make_job_in(tmp_path)


@pytest.fixture
def launch() -> Callable[..., None]:
    """Trains each job under torchrun, all in one launch."""

    def launch(jobs: dict[str, TrainJob], folder: Path, *, ranks: int) -> None:
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
            timeout=280,
        )
        assert done.returncode == 0, done.stderr

    return launch
