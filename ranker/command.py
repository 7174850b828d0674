"""How a command ends: a user's error is one readable block, anything else a traceback."""

import logging
import os
import sys
import warnings
from collections.abc import Callable

from ranker.exit_codes import PreemptedError, RankError, ToldElsewhereError, exit_code


def run_command(command: Callable[[], None]) -> int:
    """Runs a command and returns its exit code, see `ranker.exit_codes`.

    Rank 0 tells what a user can mend, without a traceback; another rank does if only it failed.

    A ValueError is a value of the configuration that a constructor refused. CTR_RANKER_TRACEBACK=1
    raises everything.
    """
    _set_log_levels()
    try:
        command()
    except BaseException as error:
        code = exit_code(error)
        if code is None or os.environ.get("CTR_RANKER_TRACEBACK") == "1":
            raise
        tells = os.environ.get("RANK", "0") == "0" or isinstance(error, RankError)
        if tells and not isinstance(error, ToldElsewhereError):
            kind = "stopped" if isinstance(error, PreemptedError) else "error"
            print(f"\n{kind}: {str(error) or 'interrupted'}", file=sys.stderr)
        return code
    return 0


def _set_log_levels() -> None:
    """Turns off what libraries say about their own future, and leaves our own warnings on."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torchrec")
    warnings.filterwarnings("ignore", category=FutureWarning, message="Please use DTensor instead")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for name in ("torchrec", "torch.fx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Hydra lets errors through only
    for name in ("ranker_data", "ranker_kernels"):
        logging.getLogger(name).setLevel(logging.WARNING)
