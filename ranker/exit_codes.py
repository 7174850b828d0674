"""Exit codes of the commands, by what ended them.

0 done   1 a bug   2 configuration or usage   3 data   4 checkpoint or storage   5 not finite
6 another rank is gone or hangs   7 constraints cannot be met
75 preempted, launch again   130 interrupted
"""

from ranker.checkpoint_files import CheckpointError
from ranker.run_dir import RunDirError
from ranker_data.reader import DataError
from ranker_data.schema import SchemaError
from ranker_data.workers import DataWorkerError

BUG = 1
PEER_LOST = 6
PREEMPTED = 75
INTERRUPTED = 130


class NonFiniteError(RuntimeError):
    """The loss, or the state to save, became NaN or infinite."""


class InfeasibleError(RuntimeError):
    """The constraints of a stage of training cannot be met."""


class PeerLostError(RuntimeError):
    """Another rank is gone or does not answer."""


class PreemptedError(Exception):
    """A signal asked the run to stop, and all ranks did at the same step."""


class ToldElsewhereError(Exception):
    """Another rank failed and tells why; this one only ends.

    Args:
        code: exit code of the rank that failed.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"another rank failed with exit code {code}")
        self.code = code


class RankError(Exception):
    """An error that only this rank has, which is not the one that usually talks.

    Args:
        text: of the error.
        code: exit code.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (DataError, 3),
    (SchemaError, 3),
    (DataWorkerError, 3),
    (CheckpointError, 4),
    (RunDirError, 2),
    (NonFiniteError, 5),
    (PeerLostError, PEER_LOST),
    (InfeasibleError, 7),
    (PreemptedError, PREEMPTED),
    (ValueError, 2),
    (KeyboardInterrupt, INTERRUPTED),
)


def exit_code(error: BaseException) -> int | None:
    """Returns the exit code of an error that a user can mend; None for a bug."""
    if isinstance(error, ToldElsewhereError | RankError):
        return error.code
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), None)
