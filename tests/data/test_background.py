import subprocess
import sys
import threading
from collections.abc import Generator

import pytest

from ranker_data.background import in_background


def numbers(count: int, log: list[str]) -> Generator[int, None, None]:
    try:
        yield from range(count)
    finally:
        log.append("closed")


def loader_threads() -> int:
    return sum(thread.name == "ranker-loader" for thread in threading.enumerate())


def test_results_come_in_order_from_another_thread() -> None:
    log: list[str] = []
    names = set()

    def square(number: int) -> int:
        names.add(threading.current_thread().name)
        return number**2

    found = list(in_background(numbers(20, log), square, ahead=3))
    assert found == [number**2 for number in range(20)]
    assert names == {"ranker-loader"}
    assert log == ["closed"]
    assert loader_threads() == 0


def test_no_more_than_a_few_results_wait() -> None:
    made: list[int] = []
    release = threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if number == 4:
            release.set()
        return number

    results = in_background(numbers(100, []), make, ahead=3)
    next(results)
    # one taken, three waiting, one in the hands of the thread
    assert release.wait(10)
    assert len(made) == 5
    results.close()  # type: ignore[attr-defined]
    assert loader_threads() == 0


def test_leaving_early_closes_the_source() -> None:
    log: list[str] = []
    results = in_background(numbers(100, log), str, ahead=2)
    assert next(results) == "0"
    results.close()  # type: ignore[attr-defined]
    assert log == ["closed"]


def test_an_error_in_the_thread_is_raised_here() -> None:
    def fail(number: int) -> int:
        raise ValueError(f"number {number}")

    with pytest.raises(ValueError, match="number 0"):
        list(in_background(numbers(3, []), fail, ahead=2))
    assert loader_threads() == 0


LEFT_OPEN = """
import itertools, time
from ranker_data.background import in_background

def forever():
    yield from itertools.count()

inner = in_background(forever(), str, ahead={ahead})
results = in_background(inner, {function}, ahead={ahead})
print(next(results), flush=True)
raise ValueError("training failed")
"""


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("function", ["str", "lambda item: time.sleep(0.05)"])
def test_a_program_ends_though_nobody_closed_the_iterator(ahead: int, function: str) -> None:
    script = LEFT_OPEN.format(ahead=ahead, function=function)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "ValueError: training failed"
