"""A small simulated data set, and configs composed for it."""

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


@pytest.fixture
def make_job(small_simulation: Path, tmp_path: Path, project_root: Path) -> JobMaker:
    def make(*overrides: str) -> TrainJob:
        arguments = [*SMALL, f"dataset.path={small_simulation}", f"run_root={tmp_path}", *overrides]
        with initialize_config_dir(str(project_root / "configs"), version_base="1.3"):
            return build_train_job(to_plain(compose("train", arguments)))

    return make
