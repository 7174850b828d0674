"""What surrounds a run on each rank: signals, the pulse, status.json, and one clear last word."""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ranker.distributed import Process, is_peer_failure
from ranker.exit_codes import (
    BUG,
    INTERRUPTED,
    PEER_LOST,
    PREEMPTED,
    PeerLostError,
    PreemptedError,
    RankError,
    ToldElsewhereError,
    exit_code,
)
from ranker.run_dir import RunDir
from ranker.supervision.peers import Note, Peers
from ranker.supervision.pulse import Pulse
from ranker.supervision.signals import StopSignals
from ranker.supervision.status import RunStatus


@dataclasses.dataclass(frozen=True)
class Supervisor:
    """What the loop reports to.

    Attributes:
        signals: that ask it to stop.
        pulse: to be told what it is doing.
        status: of the run.
    """

    signals: StopSignals
    pulse: Pulse
    status: RunStatus


@contextmanager
def supervise(run: RunDir, process: Process) -> Iterator[Supervisor]:
    """Runs a loop under supervision; all ranks enter it.

    However the loop ends, status.json says how, and of the ranks that fail together one tells why:
    the one that has the cause.

    Raises:
        PeerLostError: another rank is gone or hangs; raised by the rank that tells.
        ToldElsewhereError: on the ranks that do not tell.
    """
    peers = Peers(process.rank, process.world_size)
    status = RunStatus(run.path, process)
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        pulse = Pulse(peers, status, run.path / "debug", exit_code=PEER_LOST)
        stack.enter_context(pulse)
        try:
            yield Supervisor(signals, pulse, status)
        except PreemptedError as error:
            status.update(step=pulse.step)
            if process.is_main:
                status.end("preempted", PREEMPTED, str(error), resumable=True)
            raise
        except BaseException as error:
            status.update(step=pulse.step)
            _fail(error, peers, status)
            raise
        status.update(step=pulse.step)
        if process.is_main:
            status.end("finished", 0, "done", resumable=False)


def _fail(error: BaseException, peers: Peers, status: RunStatus) -> None:
    """Decides who tells; returns if `error` is to be raised as it is."""
    code = exit_code(error)
    lost = is_peer_failure(error)
    own = BUG if code is None else code
    note = Note(str(error) or type(error).__name__, PEER_LOST if lost else own, own=not lost)
    peers.leave(note)
    if lost:
        note = _explain_loss(error, peers, status)
    elif peers.rank > 0 and _is_told(note, peers):
        raise ToldElsewhereError(note.code) from error
    state = "interrupted" if note.code == INTERRUPTED else "failed"
    reason = f"rank {peers.rank}: {note.text}" if peers.rank > 0 and not lost else note.text
    status.end(state, note.code, reason, resumable=note.code != 2)
    if peers.rank == 0:
        # the store may live in this process, and the others ask it what happened
        peers.linger()
    if lost:
        raise PeerLostError(note.text) if peers.rank == 0 else RankError(note.text, PEER_LOST)
    if peers.rank > 0 and code is not None:
        raise RankError(f"rank {peers.rank}: {note.text}", code) from error


def _explain_loss(error: BaseException, peers: Peers, status: RunStatus) -> Note:
    """Returns what to tell about a lost peer, or raises if another rank tells."""
    notes = peers.wait_for_cause()
    causes = [note for note in notes.values() if note.own]
    if causes:
        raise ToldElsewhereError(causes[0].code) from error
    if any(rank < peers.rank for rank in notes):
        raise ToldElsewhereError(PEER_LOST) from error
    last = status.last_checkpoint
    kept = "There is no checkpoint yet" if last is None else f"The last checkpoint is step {last}"
    return Note(
        f"{peers.describe_silent(set(notes))}. A rank that is gone was killed (the kernel's log "
        "may say why; out of memory is the usual reason) or lost its machine; a rank that hangs "
        f"leaves its stacks in the run's debug folder. {kept}; launch the same command again to "
        "go on",
        PEER_LOST,
        own=False,
    )


def _is_told(note: Note, peers: Peers) -> bool:
    """Whether a lower rank fails with the same text, as all ranks do when they agreed on it."""
    notes = peers.wait_for_cause()
    return any(rank < peers.rank and other == note for rank, other in notes.items())
