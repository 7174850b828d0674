"""What launches ask Triton to compile."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_batch_of_another_size_needs_no_other_build(project_root: Path) -> None:
    """A build takes seconds, in the middle of a training."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    printed = subprocess.run(
        [sys.executable, Path(__file__).with_name("list_builds.py")],
        env=environment | {"PYTHONPATH": str(project_root / "kernels")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    first, *others = json.loads(printed)
    assert len(first) > 30
    for other in others:
        assert other.keys() == first.keys()
        for kernel, keys in other.items():
            assert keys == first[kernel], kernel
