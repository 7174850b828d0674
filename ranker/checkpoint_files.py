"""Checkpoints as folders of files: which there are, whether they are whole, what may be deleted.

    checkpoints/step-00000400/            one checkpoint: DCP shards, state.json, MANIFEST.json
    checkpoints/.tmp-step-00000400/       being written; worthless after a crash
    checkpoints/.tmp-old-step-00000400/   moved aside while the same step is replaced

No mainstream format notices a flipped bit; the manifest, with its size and sha256 of every file,
does. Nothing here talks to other processes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.json"
STATE = "state.json"
_ASIDE = ".tmp-old-"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or none that can be read."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Returns where the checkpoint of a step is, or would be."""
    return folder / f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Returns the step of a checkpoint by its name."""
    return int(path.name.removeprefix("step-"))


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run, oldest first, without looking into them."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and _is_step(path.name)]
    return sorted(found, key=step_of)


def _is_step(name: str) -> bool:
    return name.removeprefix("step-").isdigit()


def verify_checkpoint(path: Path) -> str | None:
    """Compares files with the manifest; returns the first problem, None for a whole one."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files: dict[str, dict[str, Any]] = manifest["files"]
        for name, expected in files.items():
            file = path / Path(name).name
            size = file.stat().st_size
            if size != expected["size"]:
                return f"{file} has {size} bytes, its manifest says {expected['size']}"
            if sha256(file) != expected["sha256"]:
                return f"{file} does not match the hash in its manifest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path} is incomplete ({first_line(error)})"
    return None


def newest_usable(folder: Path) -> tuple[Path | None, list[str]]:
    """Returns the newest whole checkpoint, and what is wrong with newer ones.

    A checkpoint that was moved aside when its replacement was not finished is moved back.

    Raises:
        CheckpointError: there are checkpoints, but every one is damaged.
    """
    for aside in folder.glob(f"{_ASIDE}*"):
        original = folder / aside.name.removeprefix(_ASIDE)
        if not original.exists():
            aside.rename(original)
    problems: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        problem = verify_checkpoint(path)
        if problem is None:
            return path, problems
        problems.append(problem)
    if problems:
        listed = "\n  ".join(problems)
        raise CheckpointError(
            f"no checkpoint in {folder} is usable:\n  {listed}\nRemove the folder to start afresh"
        )
    return None, problems


def choose(folder: Path, wanted: str | int) -> Path:
    """Returns the whole checkpoint that "best", "last" or a step means.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    newest, _ = newest_usable(folder)
    if newest is None:
        raise CheckpointError(f"{folder.parent} has no checkpoint; train the run first")
    step = read_state(newest)["progress"]["best_step"] if wanted == "best" else wanted
    if wanted == "last" or step is None:
        return newest
    if not isinstance(step, int):
        raise CheckpointError(f"checkpoint is {step!r}; it must be best, last or a step")
    path = checkpoint_path(folder, step)
    if not path.is_dir():
        kept = ", ".join(p.name for p in list_checkpoints(folder))
        raise CheckpointError(f"{folder.parent} has no checkpoint of step {step}; it keeps {kept}")
    problem = verify_checkpoint(path)
    if problem is not None:
        raise CheckpointError(f"{problem}; choose another one with checkpoint=last or a step")
    return path


def read_state(path: Path) -> dict[str, Any]:
    """Returns what a checkpoint holds besides tensors."""
    state: dict[str, Any] = json.loads((path / STATE).read_text())
    return state


def begin(folder: Path, step: int, size: int) -> Path:
    """Makes the temporary folder of a checkpoint and removes those that a crash left behind.

    Raises:
        OSError: the folder cannot be written, or has no room for `size` bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".tmp-*"):
        shutil.rmtree(stale)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"it needs {size / 1e9:.3f} GB, {free / 1e9:.3f} GB are free")
    temporary = folder / f".tmp-step-{step:08d}"
    temporary.mkdir()
    return temporary


def describe_files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Returns the manifest's entries of some files."""
    return {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in paths}


def commit(temporary: Path, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> Path:
    """Writes state and manifest and gives the checkpoint its name; from then on it is there."""
    write_json(temporary / STATE, state)
    own = describe_files([temporary / STATE])
    write_json(temporary / MANIFEST, {**manifest, "files": {**manifest["files"], **own}})
    _sync(temporary)
    folder = temporary.parent
    final = folder / temporary.name.removeprefix(".tmp-")
    # the same step may be saved again with a later state; it is moved aside, never overwritten
    aside = folder / f"{_ASIDE}{final.name}"
    if final.exists():
        final.rename(aside)
    temporary.rename(final)
    _sync(folder)
    shutil.rmtree(aside, ignore_errors=True)
    return final


def prune(folder: Path, keep: int, protect: int | None) -> None:
    """Deletes all but the newest `keep` checkpoints and that of step `protect` (the best)."""
    for path in list_checkpoints(folder)[:-keep]:
        if step_of(path) != protect:
            shutil.rmtree(path)


def sha256(path: Path) -> str:
    """Returns the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file and waits until the disk has it."""
    with path.open("w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
