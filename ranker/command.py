"""How a command ends: a user's error is one readable block, anything else a traceback.

0 done   1 a bug   2 configuration or usage   3 data   4 checkpoint or storage   5 loss not finite
130 interrupted
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable

from ranker.checkpoint import CheckpointError
from ranker.config import ConfigError
from ranker.run_dir import RunDirError
from ranker.trainer import NonFiniteLossError
from ranker_data.reader import DataError
from ranker_data.schema import SchemaError

_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (DataError, 3),
    (SchemaError, 3),
    (CheckpointError, 4),
    (RunDirError, 2),
    (NonFiniteLossError, 5),
    (ConfigError, 2),
    (ValueError, 2),
    (KeyboardInterrupt, 130),
)


def run_command(command: Callable[[], None]) -> int:
    """Runs a command and returns its exit code.

    Rank 0 tells what a user can mend, without a traceback.

    A ValueError is a value of the configuration that a constructor refused. CTR_RANKER_TRACEBACK=1
    raises everything.
    """
    _silence_libraries()
    try:
        command()
    except BaseException as error:
        code = next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), None)
        if code is None or os.environ.get("CTR_RANKER_TRACEBACK") == "1":
            raise
        if os.environ.get("RANK", "0") == "0":
            print(f"\nerror: {str(error) or 'interrupted'}", file=sys.stderr)
        return code
    return 0


def _silence_libraries() -> None:
    """Turns off what libraries say about their own future; it is not about the user's run."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torchrec")
    warnings.filterwarnings("ignore", category=FutureWarning, message="Please use DTensor instead")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for name in ("torchrec", "torch.fx"):
        logging.getLogger(name).setLevel(logging.ERROR)
