"""Does something with the items of an iterator in a thread, a few items ahead."""

import contextlib
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

    An error in the thread is raised here. Leaving early stops the thread and closes the source; so
    does the end of the program, even if nobody closed the iterator.

    Args:
        source: of the items.
        function: called with each of them.
        ahead: results that may wait to be taken.
    """
    results: queue.Queue[U | _End] = queue.Queue(ahead)
    stop = threading.Event()

    def is_wanted() -> bool:
        return not stop.is_set() and threading.main_thread().is_alive()

    def put(result: "U | _End") -> None:
        while is_wanted():
            try:
                return results.put(result, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
        # another thread may wait for it, which this one's end would leave waiting
        with contextlib.suppress(queue.Full):
            results.put_nowait(result)

    def run() -> None:
        end = _End(None)
        try:
            for item in source:
                put(function(item))
                if not is_wanted():
                    break
        except BaseException as error:
            end = _End(error)
        finally:
            source.close()
        put(end)

    # no daemon: the interpreter waits for it, where it would stop a daemon inside compiled code
    thread = threading.Thread(target=run, name="ranker-loader")
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
