"""Plans a model's tables for a cluster from a laptop: who holds what, and whether it fits.

python scripts/plan.py world_size=64 hbm_gb=80 experiment=synthetic_din
dataset.path=datasets/synthetic
python scripts/plan.py world_size=64 experiment=synthetic_din +rows.item=2000000000 embedding.dim=64
"""

import sys

import hydra
from omegaconf import DictConfig

from ranker.launch import launch


def plan(config: DictConfig) -> None:
    """Prints the plan of the composed config."""
    from ranker.config import to_plain
    from ranker.derived_config import build_dry_run
    from ranker.dry_run import dry_run

    text, fits = dry_run(*build_dry_run(to_plain(config)))
    print(text)
    if not fits:
        sys.exit(2)


@hydra.main(version_base="1.3", config_path="../configs", config_name="plan")
def main(config: DictConfig) -> None:
    """Entry point; Hydra composes and writes nothing."""
    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command

    sys.exit(run_command(lambda: plan(config)))


if __name__ == "__main__":
    launch(main)
