"""Examines a prepared data set before anything is trained on it; doctor.json and doctor.html.

python scripts/doctor.py data=datasets/synthetic
python scripts/doctor.py data=datasets/shop read_rows=false +severities.split_overlap=error
"""

import sys

import hydra
from omegaconf import DictConfig

from ranker.launch import launch


@hydra.main(version_base="1.3", config_path="../configs", config_name="doctor")
def main(config: DictConfig) -> None:
    """Examines what the composed config names; Hydra composes and writes nothing."""
    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command
    from ranker.config import to_plain
    from ranker.evaluation_config import build_doctor_job
    from ranker.report.data_report import examine_data

    sys.exit(run_command(lambda: examine_data(build_doctor_job(to_plain(config)))))


if __name__ == "__main__":
    launch(main)
