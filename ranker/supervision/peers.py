"""How ranks learn of each other's failures: through the store that brought them together.

A rank that fails leaves a note; one whose collective failed reads the notes and who is still alive.
So the original message is told once, by the rank that has it, and a rank that is gone or hangs is
named by the others.
"""

import dataclasses
import json
import time
from typing import Any

from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.distributed_c10d import _get_default_store

# how long to wait for the others' notes
_PATIENCE_SECONDS = 2.5
_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Note:
    """What a failing rank leaves for the others.

    Attributes:
        text: of the error.
        code: exit code.
        own: False if it only noticed that another rank is gone or does not answer.
    """

    text: str
    code: int
    own: bool


@dataclasses.dataclass(frozen=True)
class Sign:
    """A rank's last sign of life.

    Attributes:
        step: steps taken.
        doing: what it was doing.
        seconds: for how long, when it gave the sign; grows as long as it is alive.
    """

    step: int
    doing: str
    seconds: float


class Peers:
    """The notes and signs of life of all ranks; silent when the store itself is gone.

    Args:
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self._signs: dict[int, Sign] = {}
        # kept, because the store ends with its host, which may be another rank
        self._notes: dict[int, Note] = {}
        # a connection of its own: the thread of the pulse must not wait for the main thread's
        self._store = None if world_size == 1 else _clone_store()

    def give_sign(self, sign: Sign) -> None:
        """Publishes this rank's sign of life."""
        self._put(f"sign/{self.rank}", dataclasses.asdict(sign))

    def leave(self, note: Note) -> None:
        """Publishes this rank's note."""
        self._put(f"note/{self.rank}", dataclasses.asdict(note))

    def notes(self) -> dict[int, Note]:
        """Returns the notes of the other ranks, those read before included."""
        for rank in range(self.world_size):
            found = None if rank == self.rank else self._get(f"note/{rank}")
            if found is not None:
                self._notes[rank] = Note(**found)
        return dict(self._notes)

    def wait_for_cause(self) -> dict[int, Note]:
        """Waits a little for a note with a cause of its own, and returns the notes there are."""
        self._signs = self._read_signs()
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            notes = self.notes()
            told = any(note.own for note in notes.values())
            if told or len(notes) == self.world_size - 1 or time.monotonic() > end:
                self._put(f"read/{self.rank}", {})
                return notes
            time.sleep(_POLL_SECONDS)

    def linger(self) -> None:
        """Waits until all others have looked for this rank's note, or had the time to."""
        waiting = set(range(self.world_size)) - {self.rank}
        end = time.monotonic() + _PATIENCE_SECONDS
        while waiting and time.monotonic() < end:
            waiting = {rank for rank in waiting if self._get(f"read/{rank}") is None}
            time.sleep(_POLL_SECONDS)

    def describe_silent(self, noted: set[int]) -> str:
        """Names the ranks without a note: gone, or alive and stuck. Call after `wait_for_cause`."""
        lines = []
        now = self._read_signs()
        for rank in range(self.world_size):
            if rank == self.rank or rank in noted:
                continue
            sign = now.get(rank)
            if sign is None:
                lines.append(f"rank {rank} is gone; it gave no sign of life")
            elif sign == self._signs.get(rank):
                lines.append(
                    f"rank {rank} is gone; when it last gave a sign of life it was at step "
                    f"{sign.step}, {sign.doing}"
                )
            else:
                lines.append(
                    f"rank {rank} hangs: at step {sign.step}, {sign.doing} for {sign.seconds:.1f} s"
                )
        return "; ".join(lines) or "the connection between the ranks broke"

    def _read_signs(self) -> dict[int, Sign]:
        found = {r: self._get(f"sign/{r}") for r in range(self.world_size) if r != self.rank}
        return {rank: Sign(**value) for rank, value in found.items() if value is not None}

    def _put(self, key: str, value: dict[str, Any]) -> None:
        if self._store is not None:
            try:
                self._store.set(key, json.dumps(value))
            except RuntimeError:
                # its host is gone
                self._store = None

    def _get(self, key: str) -> dict[str, Any] | None:
        if self._store is None:
            return None
        try:
            if not self._store.check([key]):
                return None
            value: dict[str, Any] = json.loads(self._store.get(key))
        except RuntimeError:
            self._store = None
            return None
        return value


def _clone_store() -> Store:
    # the stub does not know `clone`
    store = _get_default_store().clone()  # type: ignore[attr-defined]
    return PrefixStore("ranker/peers", store)
