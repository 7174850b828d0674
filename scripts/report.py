"""Reports on a predictions file of any system: report.json, report.md and report.html.

python scripts/report.py predictions=runs/synthetic_din/evaluations/test/predictions.parquet
python scripts/report.py predictions=ours.parquet columns.user=uid
'+tasks.ctr={label: clicked, probability: score}'
"""

import sys

import hydra
from omegaconf import DictConfig

from ranker.launch import launch


@hydra.main(version_base="1.3", config_path="../configs", config_name="report")
def main(config: DictConfig) -> None:
    """Reports on what the composed config names; Hydra composes and writes nothing."""
    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command
    from ranker.config import to_plain
    from ranker.evaluation_config import build_report_job
    from ranker.report.from_file import report_file

    sys.exit(run_command(lambda: report_file(*build_report_job(to_plain(config)))))


if __name__ == "__main__":
    launch(main)
