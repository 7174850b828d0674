"""Small C++ libraries for CPUs, compiled at first use for the processor at hand.

The sources have a plain C interface and no dependency, so any C++ compiler builds them in seconds.
A library lies in the user's cache under a key of its sources, the compiler, the flags and the
processor; processes that build at once do not disturb each other. Without a compiler the callers
take their path in PyTorch or numpy, and a warning says so once. Imports nothing but Python's own.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

# "0" compiles nothing
SWITCH = "RANKER_KERNELS_NATIVE"
CACHE = "RANKER_KERNELS_CACHE"

# of the ops of this package
SOURCES = Path(__file__).parent
# `kOutside` of windows.h: a window or an index points to rows that there are not
OUTSIDE = 2
_FLAGS = (
    *("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread"),
    # neither errno nor floating-point traps are ever looked at
    *("-fno-math-errno", "-fno-trapping-math"),
    "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native",
)
_TIMEOUT_SECONDS = 300
_logger = logging.getLogger(__name__)


def load_library(
    source: Path, *, instead: str = "PyTorch does its work, several times slower"
) -> ctypes.CDLL | None:
    """Returns a compiled C++ file; None where that is turned off or cannot be done.

    Builds it the first time that the user of this machine needs it. The environment variable
    `RANKER_KERNELS_NATIVE=0` turns it off, `RANKER_KERNELS_CACHE` names another folder for what is
    built than `~/.cache/ranker_kernels`, and `CXX` another compiler.

    Args:
        source: the file; it may include headers that lie beside it.
        instead: what happens without it, for the warning.
    """
    return None if os.environ.get(SWITCH) == "0" else _load(source, instead)


@functools.cache
def _load(source: Path, instead: str) -> ctypes.CDLL | None:
    try:
        compiler = _find_compiler()
        path = _cache_folder() / f"{source.stem}-{_key(source, compiler)}.so"
        if not path.exists():
            _build(source, compiler, path)
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            # damaged, perhaps by a disk that was full
            path.unlink(missing_ok=True)
            _build(source, compiler, path)
            return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        _logger.warning(
            "%s is not compiled, %s: %s. Install a C++ compiler, name a folder of your own for "
            "what it makes in %s, or set %s=0 to say nothing",
            *(source.name, instead, str(reason).strip(), CACHE, SWITCH),
        )
        return None


def _find_compiler() -> str:
    chosen = os.environ.get("CXX") or "c++"
    compiler = shutil.which(chosen)
    if compiler is None:
        raise FileNotFoundError(f"there is no C++ compiler {chosen!r} on the PATH")
    return compiler


def _cache_folder() -> Path:
    chosen = os.environ.get(CACHE)
    folder = Path(chosen) if chosen else _user_cache() / "ranker_kernels"
    # what lies here is executed: nobody else may write to it
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"others may write to {folder}; set {CACHE} to a folder of your own")
    return folder


def _user_cache() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(chosen) if chosen else Path.home() / ".cache"
    except RuntimeError as error:
        # a container may run as a user that it does not know
        raise FileNotFoundError("this user has no home folder") from error


def _key(source: Path, compiler: str) -> str:
    """Hashes what the library is made from, and the processor that it is made for."""
    # a key of too many headers builds once too often, one of too few would run old code
    files = [source, *sorted(source.parent.glob("*.h"))]
    parts = [
        *(file.read_text(encoding="utf-8") for file in files),
        compiler,
        _version_of(compiler),
        *_FLAGS,
        _describe_processor(),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@functools.cache
def _version_of(compiler: str) -> str:
    return _run([compiler, "--version"])


def _describe_processor() -> str:
    """Names the processor and what it can do; a home folder may be shared by different ones."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    kinds = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))


def _build(source: Path, compiler: str, path: Path) -> None:
    start = time.perf_counter()
    # a file of its own until it is complete, so that another process never loads half of one
    handle, unfinished = tempfile.mkstemp(prefix=f".{source.stem}-", dir=path.parent)
    os.close(handle)
    try:
        _run([compiler, *_FLAGS, str(source), "-o", unfinished])
        # What another process has built meanwhile stays: it may be mapped on another machine, from
        # under which a server of files would take it.
        if not path.exists():
            os.replace(unfinished, path)
    finally:
        Path(unfinished).unlink(missing_ok=True)
    seconds = time.perf_counter() - start
    _logger.info("compiled %s in %.1f s: %s", source.name, seconds, path)


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        # a compiler may not speak the encoding of the locale
        errors="replace",
        check=True,
        timeout=_TIMEOUT_SECONDS,
    )
    return done.stdout
