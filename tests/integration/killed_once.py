"""Trains like scripts/train.py; rank 1 is killed in the first attempt of torchrun."""

import os
import signal
import sys

from hydra import compose, initialize_config_dir

from ranker.command import run_command
from ranker.config import build_train_job, to_plain
from ranker.trainer import train
from scripts.soak import CONFIGS
from tests.integration.fault_server import at_step, send

if __name__ == "__main__":
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        at_step(int(os.environ["RANK"]), 1, send(signal.SIGKILL))
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        job = build_train_job(to_plain(compose("train", sys.argv[1:])))
    sys.exit(run_command(lambda: train(job)))
