"""Checkpoints that are either whole or not there.

    checkpoints/step-00000400/            one checkpoint: DCP shards, state.json, MANIFEST.json
    checkpoints/.tmp-step-00000400/       being written; worthless after a crash

Tensors go through torch.distributed.checkpoint (any world size and sharding plan can load them),
everything else is JSON. Rank 0 hashes the files into the manifest and renames the folder when all
ranks are done, so a folder with a verified manifest is complete. No mainstream format notices a
flipped bit; the manifest does.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torchrec.optim.keyed import KeyedOptimizer, KeyedOptimizerWrapper

from ranker.distributed import barrier, broadcast_from_main
from ranker.safe_storage import TensorsOnlyLoadPlanner, TensorsOnlyReader

MANIFEST = "MANIFEST.json"
STATE = "state.json"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or none that can be read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainable:
    """What a checkpoint holds of the model.

    Attributes:
        model: under `DistributedModelParallel`.
        optimizer: of both halves.
        dense: its dense half, whose state exists only after the first step.
    """

    model: nn.Module
    optimizer: KeyedOptimizer
    dense: KeyedOptimizerWrapper

    def tensors(self) -> dict[str, Any]:
        """Returns the state to save, or to load into."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


def save_checkpoint(
    folder: Path, step: int, trainable: Trainable, state: Mapping[str, Any]
) -> Path:
    """Writes a checkpoint; every rank calls it.

    Args:
        folder: holds the run's checkpoints.
        step: global step, names the checkpoint.
        trainable: model and optimizers.
        state: JSON state: position in the data, early stopping, and so on.

    Raises:
        CheckpointError: the files could not be written; older checkpoints are untouched.
    """
    final, temporary = folder / f"step-{step:08d}", folder / f".tmp-step-{step:08d}"
    is_main = dist.get_rank() == 0
    if is_main:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".tmp-*"):
            shutil.rmtree(stale)
        temporary.mkdir()
    barrier()
    try:
        save(trainable.tensors(), checkpoint_id=temporary)
    except (CheckpointException, OSError) as error:  # the former is no Exception
        free = shutil.disk_usage(folder).free
        raise CheckpointError(
            f"checkpoint {final} was not written ({_first_line(error)}; {free / 1e9:.2f} GB free); "
            "older checkpoints are untouched. Free space and launch the same command again"
        ) from error
    barrier()
    if is_main:
        _write_json(temporary / STATE, {"step": step, **state})
        _write_json(temporary / MANIFEST, _manifest(temporary))
        # the same step may be saved again with a later state; it is moved aside, never overwritten
        old = folder / f".tmp-old-{final.name}"
        if final.exists():
            final.rename(old)
        temporary.rename(final)
        _sync(folder)
        shutil.rmtree(old, ignore_errors=True)
    barrier()
    return final


def load_checkpoint(path: Path, trainable: Trainable) -> dict[str, Any]:
    """Loads a checkpoint of any world size and sharding plan, and returns its JSON state.

    Raises:
        CheckpointError: files are missing or damaged, or the checkpoint belongs to another model.
    """
    _init_dense_state(trainable.dense)
    tensors = trainable.tensors()
    try:
        load(tensors, storage_reader=TensorsOnlyReader(path), planner=TensorsOnlyLoadPlanner())
    except (CheckpointException, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit this model ({_first_line(error)}); use the config it was "
            "trained with, or another name"
        ) from error
    trainable.model.load_state_dict(tensors["model"])
    trainable.optimizer.load_state_dict(tensors["optimizer"])
    state: dict[str, Any] = json.loads((path / STATE).read_text())
    return state


def find_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Returns the newest whole checkpoint, and what was wrong with newer ones.

    Every rank calls it; rank 0 reads.

    Raises:
        CheckpointError: there are checkpoints, but every one is damaged: never a silent fresh
        start.
    """
    found: tuple[Path | None, list[str]] | None = None
    if dist.get_rank() == 0:
        found = _newest_whole(list_checkpoints(folder))
    found = broadcast_from_main(found)
    assert found is not None
    path, problems = found
    if path is None and problems:
        listed = "\n  ".join(problems)
        raise CheckpointError(
            f"no checkpoint in {folder} is usable:\n  {listed}\nRemove the folder to start afresh"
        )
    return path, problems


def _newest_whole(candidates: list[Path]) -> tuple[Path | None, list[str]]:
    problems: list[str] = []
    for path in reversed(candidates):
        problem = verify_checkpoint(path)
        if problem is None:
            return path, problems
        problems.append(problem)
    return None, problems


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run, oldest first, without looking into them."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


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
            if _sha256(file) != expected["sha256"]:
                return f"{file} does not match the hash in its manifest"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{path} is incomplete ({_first_line(error)})"
    return None


def prune_checkpoints(folder: Path, keep: int, protect: int | None) -> None:
    """Deletes all but the newest `keep` checkpoints and that of step `protect` (the best)."""
    if dist.get_rank() == 0:
        for path in list_checkpoints(folder)[:-keep]:
            if protect is None or path.name != f"step-{protect:08d}":
                shutil.rmtree(path)
    barrier()


def _init_dense_state(optimizer: KeyedOptimizerWrapper) -> None:
    """Makes Adam's moments, which otherwise come into being at the first step.

    A load can only fill what exists.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in optimizer.params.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _manifest(folder: Path) -> dict[str, Any]:
    files = {
        path.name: {"size": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
    }
    return {
        "format": 1,
        "torch": torch.__version__,
        "world_size": dist.get_world_size(),
        "files": files,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
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


def _first_line(error: BaseException) -> str:
    if isinstance(error, CheckpointException) and error.failures:
        # its own text is a traceback of every rank
        error = next(iter(error.failures.values()))[0]
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
