"""Objects and file descriptors over a local socket, and blocks in memory that both ends map."""

import dataclasses
import mmap
import os
import pickle
import socket
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from ranker_data.arena import Arena
from ranker_data.block import Block
from ranker_data.columns import Array

_HEADER = struct.Struct("<Q")


def send(connection: socket.socket, value: Any, files: tuple[int, ...] = ()) -> None:
    """Sends an object, and file descriptors that the other end gets copies of."""
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    socket.send_fds(connection, [_HEADER.pack(len(data))], list(files))
    connection.sendall(data)


def receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """Returns the next object, and the descriptors that came with it.

    Raises:
        EOFError: the other end is gone.
        TimeoutError: nothing came within the socket's timeout.
    """
    try:
        header, files, _, _ = socket.recv_fds(connection, _HEADER.size, 1)
        header += _read(connection, _HEADER.size - len(header)) if header else b""
        if not header:
            raise EOFError
        # both ends are ours
        return pickle.loads(_read(connection, _HEADER.unpack(header)[0])), files  # noqa: S301
    except ConnectionError as error:
        raise EOFError from error


def _read(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while len(view):
        count = connection.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return data


def create_shared(num_bytes: int) -> int:
    """Returns the descriptor of new memory without a name; it goes with its last user."""
    file = os.memfd_create("ranker-block", os.MFD_CLOEXEC)
    os.truncate(file, max(num_bytes, mmap.PAGESIZE))
    return file


def map_shared(file: int) -> Arena:
    """Maps the memory of a descriptor, which is closed, as an arena."""
    try:
        return Arena(np.frombuffer(mmap.mmap(file, 0), np.uint8))
    finally:
        os.close(file)


@dataclasses.dataclass(frozen=True)
class _InArena:
    """An array by its place in an arena."""

    begin: int
    dtype: str
    shape: tuple[int, ...]


def pack_block(block: Block, arena: Arena) -> dict[str, Any]:
    """Returns a block as values to send; arrays in the arena are sent as their place."""
    base = arena.buffer.ctypes.data

    def pack(array: Array) -> Array | _InArena:
        begin = array.ctypes.data - base
        inside = begin >= 0 and begin + array.nbytes <= len(arena.buffer)
        return _InArena(begin, array.dtype.str, array.shape) if inside else array

    return _map_arrays({f.name: getattr(block, f.name) for f in dataclasses.fields(block)}, pack)


def unpack_block(values: dict[str, Any], arena: Arena) -> Block:
    """Returns the block that `pack_block` was given, in the receiver's arena."""

    def unpack(value: Array | _InArena) -> Array:
        if not isinstance(value, _InArena):
            return value
        size = int(np.prod(value.shape)) * np.dtype(value.dtype).itemsize
        return arena.buffer[value.begin : value.begin + size].view(value.dtype).reshape(value.shape)

    return Block(**_map_arrays(values, unpack))


def _map_arrays(values: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        name: {key: function(item) for key, item in value.items()}
        if isinstance(value, dict)
        else function(value)
        for name, value in values.items()
    }
