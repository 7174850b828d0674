"""Ranks the fields of a prepared data set by what each tells about the labels (OutRank).

python scripts/rank_features.py data=datasets/synthetic
python scripts/rank_features.py data=datasets/shop max_rows=10000000 out=reports/shop
"""

import sys

import hydra
from omegaconf import DictConfig

from ranker.launch import launch


@hydra.main(version_base="1.3", config_path="../configs", config_name="rank_features")
def main(config: DictConfig) -> None:
    """Ranks what the composed config names; Hydra composes and writes nothing."""
    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command
    from ranker.config import to_plain
    from ranker.evaluation_config import build_rank_job
    from ranker.report.feature_report import rank_features

    sys.exit(run_command(lambda: rank_features(build_rank_job(to_plain(config)))))


if __name__ == "__main__":
    launch(main)
