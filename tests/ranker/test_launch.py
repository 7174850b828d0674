import subprocess
import sys
from pathlib import Path

import pytest


def run(project_root: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(project_root / "scripts" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.dense_lrr=1", "unknown key optimizer.dense_lrr; did you mean 'dense_lr'?"),
        ("hed.task=ctr", "unknown key hed; did you mean 'head'?"),
        ("sequence=dinn", "Could not find 'sequence/dinn'"),
        ("experiment=ebnerd", "Could not find 'experiment/ebnerd'"),
        ("loader.batch_size", "missing EQUAL"),
    ],
)
def test_a_mistyped_command_is_one_block(project_root: Path, override: str, message: str) -> None:
    done = run(project_root, "train.py", override)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "To append to your config use +" not in done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "train.py",
        "evaluate.py",
        "prepare_data.py",
        "compare.py",
        "report.py",
        "sweep.py",
        "doctor.py",
        "rank_features.py",
    ],
)
def test_help_shows_the_commands(project_root: Path, script: str) -> None:
    done = run(project_root, script, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python scripts/{script}" in done.stdout
