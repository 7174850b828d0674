"""status.json: what a run is doing, and how it ended, for the program that watches it.

state            running, finished, preempted, interrupted or failed
step             global steps taken
total_steps      that the run will have at most
last_checkpoint  step of the newest whole checkpoint; null before the first
reason           why it ended, in words
exit_code        of the ranks; null while it runs (torchrun itself exits with 1 for every failure)
resumable        whether the same command goes on with it
heartbeat        seconds since 1970; old while the state is "running" means that it was killed
started, process, host, world_size, command
"""

import contextlib
import json
import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ranker.distributed import Process

STATUS = "status.json"


class RunStatus:
    """Keeps status.json; rank 0 writes, except for the end of a run that rank 0 cannot tell.

    Each write replaces the file as a whole. A status that cannot be written never ends a run.

    Args:
        folder: of the run.
        process: this process.
    """

    def __init__(self, folder: Path, process: Process) -> None:
        self._path = folder / STATUS
        self._is_main = process.is_main
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {
            "state": "running",
            "step": 0,
            "total_steps": None,
            "last_checkpoint": None,
            "reason": None,
            "exit_code": None,
            "resumable": True,
            "started": time.time(),
            "process": os.getpid(),
            "host": platform.node(),
            "world_size": process.world_size,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        }

    def update(self, **values: Any) -> None:
        """Changes values; the next heartbeat writes them."""
        with self._lock:
            self._values.update(values)

    @property
    def last_checkpoint(self) -> int | None:
        """Step of the newest whole checkpoint."""
        step: int | None = self._values["last_checkpoint"]
        return step

    def beat(self) -> None:
        """Writes the file with the time of now, if this is rank 0."""
        if self._is_main:
            self._write()

    def end(self, state: str, exit_code: int, reason: str, *, resumable: bool) -> None:
        """Writes how the run ended, whichever rank this is."""
        self.update(state=state, exit_code=exit_code, reason=reason, resumable=resumable)
        self._write()

    def _write(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            temporary = self._path.with_name(f".{STATUS}.{os.getpid()}")
            temporary.write_text(json.dumps({**self._values, "heartbeat": time.time()}, indent=1))
            temporary.replace(self._path)
