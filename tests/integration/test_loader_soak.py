"""A short run of scripts/soak_loader.py: kills, other ranks and workers, and the same samples."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_killed_readers_go_on_with_other_ranks_and_workers(
    tiny_dataset: Path, tmp_path: Path, project_root: Path
) -> None:
    arguments = [f"--data={tiny_dataset}", f"--cache={tmp_path}", "--kills=3", "--epochs=1"]
    done = subprocess.run(
        [
            sys.executable,
            str(project_root / "scripts" / "soak_loader.py"),
            *arguments,
            "--batch-size=16",
            "--pause=0.05",
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["equal_to_undisturbed"]
    assert result["rounds"] == {
        "ranks 1, workers 0": 1,
        "ranks 1, workers 2": 1,
        "ranks 2, workers 0": 1,
        "ranks 2, workers 2": 1,
    }
