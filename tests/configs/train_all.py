"""Trains every config of a folder in one process group; launched by torchrun."""

import json
import sys
from pathlib import Path

from ranker.config import build_train_job
from ranker.distributed import process_group
from ranker.run_dir import claim_run_dir
from ranker.supervision.supervisor import supervise
from ranker.trainer import Trainer

if __name__ == "__main__":
    with process_group("cpu", timeout_seconds=60) as process:
        for path in sorted(Path(sys.argv[1]).glob("*.json")):
            job = build_train_job(json.loads(path.read_text()))
            with (
                claim_run_dir(job.run_dir, job.config) as run,
                supervise(run, process) as supervisor,
            ):
                Trainer(job, process, run, supervisor).fit()
