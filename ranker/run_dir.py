"""A run's directory: who may use it, and what is written down about how the run was made.

runs/<name>/config.yaml  env.json  metrics.jsonl  tensorboard/  checkpoints/  evaluations/<split>/
.lock
"""

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from ranker.distributed import agree

# keys that may change between two launches of one run; everything else decides what is learned
FREE_KEYS = (
    "trainer.",
    "run_root",
    "name",
    "dataset.path",
    "dataset.converter",
    "plugins",
    "sharding.",
    "loader.cache_dir",
    "loader.num_workers",
    "loader.prefetch",
    "loader.worker_timeout_seconds",
)


class RunDirError(ValueError):
    """A run directory that cannot be used."""


class RunDir:
    """Paths inside a run's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"

    def evaluation(self, split: str) -> Path:
        """Returns where predictions and report of a split go."""
        return self.path / "evaluations" / split

    def read_config(self) -> dict[str, Any]:
        """Reads the resolved config that the run was made with, as data.

        Raises:
            RunDirError: the directory is not a run.
        """
        if not self.config.is_file():
            raise RunDirError(
                f"{self.path} is not a run directory: it has no config.yaml; give run=<folder "
                "made by scripts/train.py>"
            )
        config = yaml.safe_load(self.config.read_text())
        assert isinstance(config, dict)
        return config


@contextmanager
def claim_run_dir(path: Path, config: Mapping[str, Any]) -> Iterator[RunDir]:
    """Claims a directory for a run and writes config and environment into it.

    All ranks call it, rank 0 acts.

    Args:
        path: of the run.
        config: resolved, plain.

    Raises:
        RunDirError: the directory cannot be written, another process uses it, or it holds a run
        with another config.
    """
    with ExitStack() as stack:

        def claim() -> None:
            if int(os.environ.get("RANK", "0")) == 0:
                stack.enter_context(_lock(path))
                _write_identity(RunDir(path), config)

        agree(claim, RunDirError)
        yield RunDir(path)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds the directory's lock, which ends with the process, however that ends."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("a+")
    except OSError as error:
        raise RunDirError(
            f"run directory {path} cannot be written ({error.strerror}); set run_root=<folder "
            "you may write to>"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise RunDirError(
                f"run directory {path} is in use by {lock.read().strip() or 'another process'}; "
                "give this run another name, or wait"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield


def _write_identity(run: RunDir, config: Mapping[str, Any]) -> None:
    if run.config.exists():
        _check_same(run, config)
    run.config.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    (run.path / "env.json").write_text(json.dumps(describe_environment(), indent=1))


def _check_same(run: RunDir, config: Mapping[str, Any]) -> None:
    old, new = _flatten(run.read_config()), _flatten(config)
    differing = [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(FREE_KEYS)
    ]
    if differing:
        listed = "\n  ".join(differing)
        raise RunDirError(
            f"{run.path} holds a run with another config:\n  {listed}\n"
            "give this run another name, or restore these values to resume it"
        )


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flatten(item, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def describe_environment() -> dict[str, Any]:
    """Returns versions, platform, command and git state: what is needed to reproduce a run."""
    packages = (
        "torch",
        "torchrec",
        "fbgemm-gpu",
        "triton",
        "pyarrow",
        "numpy",
        "hydra-core",
        "ctr-ranker",
    )
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in packages},
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changed_files": (_git("status", "--porcelain") or "").splitlines(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
