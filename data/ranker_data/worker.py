"""A data worker: builds the blocks that its parent asks for, until the parent is gone.

    python -m ranker_data.worker <descriptor of a socket>

Its parent is `workers.WorkerPool`. Imports no torch, so that it starts fast and is small.
"""

import os
import signal
import socket
import sys
import traceback
from typing import Any

from ranker_data.arena import Arena
from ranker_data.channel import map_shared, pack_block, receive, send
from ranker_data.reader import DataError
from ranker_data.source import BatchSource

# how often an idle worker looks whether its parent is still there
_LOOK_SECONDS = 5.0


def main() -> None:
    """Serves until the parent ends or closes the socket."""
    # the parent decides when to stop: what a terminal or a scheduler sends to all is not for us
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.settimeout(_LOOK_SECONDS)
    try:
        _serve(connection, parent)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _serve(connection: socket.socket, parent: int) -> None:
    source, _ = _await(connection, parent)
    assert isinstance(source, BatchSource)
    arenas: dict[int, Arena] = {}
    while True:
        (epoch, first_step, last_step, slot, forget), files = _await(connection, parent)
        for old in forget:
            del arenas[old]
        if files:
            arenas[slot] = map_shared(files[0])
        arena = arenas[slot]
        arena.demand = 0
        try:
            block = source.build(epoch, first_step, last_step, arena)
        except Exception as error:
            # shown by the parent; a worker has no one to tell
            text = str(error) if isinstance(error, DataError) else traceback.format_exc()
            connection.settimeout(None)
            send(connection, (isinstance(error, DataError), text))
            return
        connection.settimeout(None)
        send(connection, (arena.demand, pack_block(block, arena)))
        connection.settimeout(_LOOK_SECONDS)


def _await(connection: socket.socket, parent: int) -> tuple[Any, list[int]]:
    while True:
        try:
            return receive(connection)
        except TimeoutError:
            # another child of the parent may keep the socket open after the parent's death
            if os.getppid() != parent:
                raise EOFError from None


if __name__ == "__main__":
    main()
