"""Trains day by day, each day scored before it is trained on; launch it again to go on.

python scripts/train_daily.py experiment=synthetic_din dataset.path=datasets/synthetic name=daily
torchrun --nproc-per-node 2 scripts/train_daily.py experiment=synthetic_din
dataset.path=datasets/synthetic name=daily daily.first_day=2024-02-12 daily.last_day=2024-02-20
"""

import sys

import hydra
from omegaconf import DictConfig

from ranker.launch import launch


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_daily")
def main(config: DictConfig) -> None:
    """Trains the composed config; Hydra composes and writes nothing."""
    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command
    from ranker.config import to_plain
    from ranker.daily import train_daily
    from ranker.derived_config import build_daily_job

    sys.exit(run_command(lambda: train_daily(*build_daily_job(to_plain(config)))))


if __name__ == "__main__":
    launch(main)
