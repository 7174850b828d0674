"""Memory that a step frees stays with the process."""

import os
import subprocess
import sys

import pytest

# how often the kernel had to give a page: a block of 16 MB has 4,096 of them
PROGRAM = """
import resource
from ranker.freed_memory import keep_freed_memory
keep_freed_memory()
def run_step():
    blocks = [bytearray(size << 20) for size in (3, 16, 7)]
    del blocks
for _ in range(3):
    run_step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    run_step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(**environment: str) -> int:
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU's C library is told")
def test_pages_of_a_step_are_not_asked_for_again() -> None:
    assert count_faults() < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU's C library is told")
def test_a_choice_of_the_users_stays() -> None:
    # everything above 64 KB comes from the kernel
    assert count_faults(MALLOC_MMAP_THRESHOLD_="65536") > 5 * 6000
