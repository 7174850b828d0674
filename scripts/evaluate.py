"""Evaluates a run on a split: predictions.parquet, report (JSON, Markdown, HTML) and cards.

python scripts/evaluate.py run=runs/synthetic_din split=test
torchrun --nproc-per-node 2 scripts/evaluate.py run=runs/synthetic_din split=valid checkpoint=last
"""

import sys

import hydra
from omegaconf import DictConfig

from ranker.launch import launch


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluates what the composed config names; Hydra composes and writes nothing."""
    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command
    from ranker.config import to_plain
    from ranker.evaluate_run import evaluate_run
    from ranker.evaluation_config import build_evaluation

    sys.exit(run_command(lambda: evaluate_run(*build_evaluation(to_plain(config)))))


if __name__ == "__main__":
    launch(main)
