"""Compiles a C file of this package on the machine that runs it, once, and keeps the library."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

_FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC")
_TIMEOUT_SECONDS = 60

_log = logging.getLogger(__name__)


@functools.cache
def compiled_library(source: Path) -> Path | None:
    """Returns the library of a C file, or None where nothing compiles it, which is said once.

    The compiler is $CC, or cc. The library is kept in $XDG_CACHE_HOME/ctr-ranker (~/.cache), under
    a name that holds a hash of the source, the compiler and the kind of machine; where that folder
    cannot be written, or belongs to somebody else, in a temporary one.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    program = shutil.which(compiler[0])
    if program is None:
        _log.warning(
            "there is no C compiler %r, so batches are built by numpy alone, at about half the "
            "speed; install one, or name yours in $CC",
            compiler[0],
        )
        return None
    command = [program, *compiler[1:], *_FLAGS]
    content = "\n".join([source.read_text(), *command, platform.machine(), platform.libc_ver()[1]])
    name = f"{source.stem}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.so"
    library = _own_folder() / name
    if _loads(library):
        return library
    # complete under its name: several processes may do this at the same time
    temporary = library.with_name(f".{name}-{os.getpid()}")
    try:
        subprocess.run(
            [*command, "-o", str(temporary), str(source)],
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
        )
        temporary.replace(library)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        _log.warning(
            "%s does not compile %s, so batches are built by numpy alone, at about half the "
            "speed (%s)",
            shlex.join(command),
            source.name,
            str(reason).strip(),
        )
        return None
    return library


def _loads(library: Path) -> bool:
    """Whether a library is there and whole; a disk that was full may have left less."""
    try:
        ctypes.CDLL(str(library))
    except OSError:
        return False
    return True


@functools.cache
def _own_folder() -> Path:
    """Returns a folder that only this user can write to: what is in it is going to be run."""
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(home) / "ctr-ranker"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        foreign = found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not foreign and os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:
        pass
    temporary = tempfile.TemporaryDirectory(prefix="ctr-ranker-")
    _kept.append(temporary)
    return Path(temporary.name)


# removed when the process ends
_kept: list[tempfile.TemporaryDirectory[str]] = []
