"""Signals that ask a run to stop: they set a flag, and the loop stops where all ranks agree."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

# torchrun passes a SIGTERM on to ranks that got it already when a whole process group is signalled
_BURST_SECONDS = 3.0


class StopSignals:
    """Catches SIGTERM and SIGUSR1 while it is entered; a later SIGTERM ends the process at once.

    SIGINT is left alone: Ctrl-C is for people who do not want to wait.

    Attributes:
        requested: number of the first signal that came, 0 before.
    """

    def __init__(self) -> None:
        self.requested = 0
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._first = number, time.monotonic()
        elif number == signal.SIGTERM and time.monotonic() - self._first > _BURST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def signal_name(number: int) -> str:
    """Returns the name of a signal."""
    return signal.Signals(number).name
