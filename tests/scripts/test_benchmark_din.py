import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_din.py"


@pytest.mark.slow
def test_measures_training_from_parquet_and_the_auc() -> None:
    command = [sys.executable, str(SCRIPT), "--rows", "6000", "--items", "500", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    figures, optimizers = done.stdout.splitlines()[-1].split("; ")
    name, rate, _, _, auc = figures.split()
    assert name == "ours"
    assert float(rate.replace(",", "")) > 100
    assert 0.4 < float(auc) < 0.8
    assert optimizers == "rowwise_adagrad on tables, adamw on the rest"
