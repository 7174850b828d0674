"""Compares runs on the same rows, in pairs and with intervals: comparison.json, .md and .html.

python scripts/compare.py runs=[runs/pooling,runs/din] baseline=runs/pooling split=test
python scripts/compare.py 'runs={pooling: [runs/p0,runs/p1], din: [runs/d0,runs/d1]}'
"""

import sys

import hydra
from omegaconf import DictConfig

from ranker.launch import launch


@hydra.main(version_base="1.3", config_path="../configs", config_name="compare")
def main(config: DictConfig) -> None:
    """Compares what the composed config names; Hydra composes and writes nothing."""
    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command
    from ranker.config import to_plain
    from ranker.evaluation_config import build_comparison
    from ranker.report.from_runs import compare_runs

    sys.exit(run_command(lambda: compare_runs(build_comparison(to_plain(config)))))


if __name__ == "__main__":
    launch(main)
