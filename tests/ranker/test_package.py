import os
import subprocess
import sys

import pytest

PRINT = "import os, ranker; print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        ({}, "3000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "None"),
    ],
)
def test_openmp_workers_spin_shortly_unless_the_user_chose(
    chosen: dict[str, str], count: str
) -> None:
    ours = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-c", PRINT]
    done = subprocess.run(command, env=environment | chosen, capture_output=True, text=True)
    assert done.stdout.strip() == count
