"""Does something with the items of an iterator in a thread, a few items ahead."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

# how often a thread whose items nobody takes looks whether it should stop
_LOOK_SECONDS = 0.1


def in_background(
    source: Generator[T, None, None], function: Callable[[T], U], *, ahead: int
) -> Iterator[U]:
    """Yields function(item) for every item; source and function run in a thread.

    An error in the thread is raised here. Leaving early stops the thread and closes the source.

    Args:
        source: of the items.
        function: called with each of them.
        ahead: results that may wait to be taken.
    """
    results: queue.Queue[U | _End] = queue.Queue(ahead)
    stop = threading.Event()

    def put(result: "U | _End") -> None:
        while not stop.is_set():
            try:
                return results.put(result, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue

    def run() -> None:
        end = _End(None)
        try:
            for item in source:
                put(function(item))
                if stop.is_set():
                    break
        except BaseException as error:
            end = _End(error)
        finally:
            source.close()
        put(end)

    thread = threading.Thread(target=run, name="ranker-loader", daemon=True)
    thread.start()
    try:
        while not isinstance(result := results.get(), _End):
            yield result
        if result.error is not None:
            raise result.error
    finally:
        stop.set()
        thread.join()


class _End:
    """Stands behind the last result."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
