"""A thread that shows that a rank is alive, and ends it when the others have failed."""

import faulthandler
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from ranker.supervision.peers import Peers, Sign
from ranker.supervision.status import RunStatus

_INTERVAL_SECONDS = 1.0
# a rank that another's failure does not wake in this time hangs
_GRACE_SECONDS = 10.0


class Pulse:
    """Publishes what this rank is doing, keeps status.json fresh, and ends a rank that hangs.

    Args:
        peers: where to publish, and to learn of failures.
        status: of the run.
        debug: folder for the stacks of a rank that hangs.
        exit_code: of a rank that is ended because another failed.
    """

    def __init__(self, peers: Peers, status: RunStatus, debug: Path, *, exit_code: int) -> None:
        self._peers, self._status, self._debug = peers, status, debug
        self._exit_code = exit_code
        self._doing, self._step, self._since = "starting", 0, time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._give_sign()
        self._status.beat()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def enter(self, doing: str, step: int) -> None:
        """Notes what the main thread does from now on; costs nothing."""
        self._doing, self._step, self._since = doing, step, time.monotonic()

    @property
    def step(self) -> int:
        """Steps taken."""
        return self._step

    def _run(self) -> None:
        failed_since: float | None = None
        while not self._stop.wait(_INTERVAL_SECONDS):
            self._give_sign()
            if not self._peers.notes():
                self._status.beat()
            elif failed_since is None:
                # from now on the file is left to the rank that tells how the run ended
                failed_since = time.monotonic()
            elif time.monotonic() - failed_since > _GRACE_SECONDS:
                self._end()

    def _give_sign(self) -> None:
        seconds = time.monotonic() - self._since
        self._peers.give_sign(Sign(self._step, self._doing, seconds))
        self._status.update(step=self._step)

    def _end(self) -> None:
        """Ends this process, which cannot end itself, and leaves its stacks behind."""
        try:
            self._debug.mkdir(parents=True, exist_ok=True)
            path = self._debug / f"stack-rank-{self._peers.rank}.txt"
            with path.open("w") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        finally:
            os._exit(self._exit_code)
