"""Trains a model, or goes on with a run that was stopped: launch the same command again.

python scripts/train.py experiment=synthetic_din dataset.path=datasets/synthetic
torchrun --nproc-per-node 2 scripts/train.py experiment=synthetic_din
dataset.path=datasets/synthetic
"""

import sys

import hydra
from omegaconf import DictConfig

from ranker.launch import launch


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def main(config: DictConfig) -> None:
    """Trains the composed config; Hydra composes and writes nothing."""
    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command
    from ranker.config import build_train_job, to_plain
    from ranker.trainer import train

    sys.exit(run_command(lambda: train(build_train_job(to_plain(config)))))


if __name__ == "__main__":
    launch(main)
