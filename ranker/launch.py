"""Starts a Hydra entry point so that a mistyped override is one readable line.

Imports nothing heavy: `--help` and a typo should not wait for torch.
"""

import difflib
import os
import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException


def launch(main: Callable[[], None]) -> None:
    """Calls a function decorated with `hydra.main`; exits with 2 if Hydra refuses the command."""
    # Hydra raises instead of printing its own advice, which is to add the unknown key with a plus
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"\nerror: {explain(error)}", file=sys.stderr)
        sys.exit(2)


def explain(error: BaseException) -> str:
    """Returns what is wrong with an override, with the nearest key where one is mistyped."""
    cause = error.__cause__
    text = str(error).strip()
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        known = [str(key) for key in cause.parent_node]
        key = cause.full_key or str(cause.key)
        close = difflib.get_close_matches(str(cause.key), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
        return f"unknown key {key}; {hint}"
    return text
