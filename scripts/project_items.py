"""Projects all items of a run's checkpoint, K_h W^h of its TWIN encoders: the search's cache.

python scripts/project_items.py run=runs/twin checkpoint=1000 out=runs/twin/projections-1000
python scripts/evaluate.py run=runs/twin projections=runs/twin/projections-1000
"""

import sys

import hydra
from omegaconf import DictConfig

from ranker.launch import launch


@hydra.main(version_base="1.3", config_path="../configs", config_name="project_items")
def main(config: DictConfig) -> None:
    """Projects what the composed config names; Hydra composes and writes nothing."""
    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command
    from ranker.config import to_plain
    from ranker.evaluation_config import build_projection
    from ranker.project_run import project_run

    sys.exit(run_command(lambda: project_run(*build_projection(to_plain(config)))))


if __name__ == "__main__":
    launch(main)
