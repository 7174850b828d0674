"""Processes that build blocks ahead of the training process.

Worker i builds the blocks i, i + W, i + 2 W, ... and the parent takes them in turn, so the order
does not depend on the number of workers. A worker is started afresh, not forked: that is safe
beside threads and GPUs. It ends when its end of the socket is closed, however the parent ends.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from ranker_data.arena import Arena, is_free
from ranker_data.block import Block
from ranker_data.channel import create_shared, map_shared, receive, send, unpack_block
from ranker_data.reader import DataError
from ranker_data.source import BatchSource

# epoch, first step and the step behind the last one of a block
Span = tuple[int, int, int]

_CLOSE_SECONDS = 10.0


class DataWorkerError(RuntimeError):
    """A data worker died or does not answer."""


class WorkerPool:
    """Some workers; a context manager that stops them at the end.

    Args:
        source: builds the blocks; sent to every worker.
        num_workers: processes.
        ahead: blocks that each worker builds ahead.
        timeout_seconds: a worker may take so long for a block.
        name: what the workers read, for messages.
    """

    def __init__(
        self,
        source: BatchSource,
        *,
        num_workers: int,
        ahead: int,
        timeout_seconds: float,
        name: str,
    ) -> None:
        self._ahead = ahead
        self._workers: list[_Worker] = []
        try:
            for i in range(num_workers):
                title = f"data worker {i + 1} of {num_workers} of {name}"
                self._workers.append(_Worker(title, source, timeout_seconds))
        except BaseException:
            self.close()
            raise

    def blocks(self, spans: Iterable[Span]) -> Iterator[Block]:
        """Yields the blocks of some spans in their order.

        Raises:
            DataError: a worker found bad data.
            DataWorkerError: a worker died, failed or does not answer.
        """
        rest = iter(spans)
        waiting: deque[tuple[_Worker, Span]] = deque()
        for worker, span in zip(self._workers * self._ahead, rest, strict=False):
            worker.ask(span)
            waiting.append((worker, span))
        while waiting:
            worker, span = waiting.popleft()
            block = worker.take(span)
            following = next(rest, None)
            if following is not None:
                worker.ask(following)
                waiting.append((worker, following))
            yield block

    def close(self) -> None:
        """Stops all workers."""
        for worker in self._workers:
            worker.hang_up()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for worker in self._workers:
            worker.join(deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Worker:
    """The parent's end of one worker."""

    def __init__(self, title: str, source: BatchSource, timeout_seconds: float) -> None:
        self._title, self._timeout = title, timeout_seconds
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ranker_data.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._connection.settimeout(timeout_seconds)
        self._arenas: dict[int, Arena] = {}
        # slots of the blocks that were asked for and are not here yet
        self._asked: deque[int] = deque()
        self._next_slot = 0
        self._num_bytes = 0
        self._say(source)

    def ask(self, span: Span) -> None:
        """Tells the worker to build a block."""
        slot, forget = self._free_slot()
        if slot is not None:
            self._say((*span, slot, forget))
        else:
            slot, self._next_slot = self._next_slot, self._next_slot + 1
            file = create_shared(self._num_bytes + self._num_bytes // 8)
            self._say((*span, slot, forget), file)
            self._arenas[slot] = map_shared(file)
        self._asked.append(slot)

    def _free_slot(self) -> tuple[int | None, list[int]]:
        """Returns a slot that can be used again, and slots that are too small and forgotten."""
        free = [
            slot
            for slot, arena in self._arenas.items()
            if slot not in self._asked and is_free(arena)
        ]
        small = [slot for slot in free if len(self._arenas[slot].buffer) < self._num_bytes]
        for slot in small:
            del self._arenas[slot]
        fitting = [slot for slot in free if slot not in small]
        # more than one free slot was needed once and is not any more
        for slot in fitting[2:]:
            del self._arenas[slot]
        return (fitting[0] if fitting else None), small + fitting[2:]

    def take(self, span: Span) -> Block:
        """Returns the block that was asked for first."""
        try:
            (first, second), _ = receive(self._connection)
        except EOFError:
            raise self._death(span) from None
        except TimeoutError:
            # it may never look at its socket again
            self._process.kill()
            raise DataWorkerError(
                f"{self._name()} has not delivered {_describe(span)} for {self._timeout:g} s; look "
                "at the disk that holds loader.cache_dir, or raise loader.worker_timeout_seconds"
            ) from None
        if isinstance(second, str):
            if first:
                raise DataError(second)
            raise DataWorkerError(f"{self._name()} failed at {_describe(span)}:\n{second}")
        self._num_bytes = max(self._num_bytes, first)
        return unpack_block(second, self._arenas[self._asked.popleft()])

    def _say(self, value: object, *files: int) -> None:
        try:
            send(self._connection, value, files)
        except (BrokenPipeError, ConnectionResetError):
            # the answer that is missing tells why
            return

    def _name(self) -> str:
        return f"{self._title} (pid {self._process.pid})"

    def _death(self, span: Span) -> DataWorkerError:
        try:
            code = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return DataWorkerError(f"{self._name()} closed its connection at {_describe(span)}")
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        cause = "probably out of memory: " if code == -signal.SIGKILL else ""
        return DataWorkerError(
            f"{self._name()} {how} while it built {_describe(span)}; {cause}lower "
            "loader.num_workers, loader.prefetch or loader.batch_size; the same command goes on "
            "from the last checkpoint"
        )

    def hang_up(self) -> None:
        """Closes the connection, which ends the worker."""
        self._connection.close()

    def join(self, deadline: float) -> None:
        """Waits until the worker has ended, and kills it after the deadline."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _describe(span: Span) -> str:
    epoch, first, last = span
    return f"steps {first} to {last - 1} of epoch {epoch}"
