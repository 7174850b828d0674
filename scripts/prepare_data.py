"""Prepares a data set: original files, or the simulator, to the event-log layout.

python scripts/prepare_data.py dataset=synthetic out=datasets/synthetic
python scripts/prepare_data.py dataset=ebnerd source=<original files> out=datasets/ebnerd
python scripts/prepare_data.py dataset=movielens source=<original files> out=datasets/movielens
python scripts/prepare_data.py dataset=custom source=<folder> out=datasets/shop engine=spark
"""

import json
import sys

import hydra
from omegaconf import DictConfig

from ranker.launch import launch


def prepare(config: DictConfig) -> None:
    """Prepares the composed data set and says what came out."""
    from ranker.config import build_prepare_job, to_plain
    from ranker_data.layout import STATS_FILE

    job = build_prepare_job(to_plain(config))
    job.converter.prepare(job.source, job.out, job.engine)
    stats = json.loads((job.out / STATS_FILE).read_text())
    print(json.dumps(stats, indent=1))
    print(f"prepared {job.out}")


@hydra.main(version_base="1.3", config_path="../configs", config_name="prepare_data")
def main(config: DictConfig) -> None:
    """Entry point; Hydra composes and writes nothing."""
    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command

    sys.exit(run_command(lambda: prepare(config)))


if __name__ == "__main__":
    launch(main)
