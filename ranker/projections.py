"""The store of projected items: written from a checkpoint, read by an evaluation.

In production TWIN's search reads K_h W^h of all items from a cache that is refreshed every few
minutes, while the weights that it is compared with move on (2302.02352, section 4.4). Here

    projections.json            checkpoint, and by encoder its heads and fields
    <encoder>/<field>.npy       [ids, H d] float32, mapped into memory when it is read

A run evaluated with the store of an older checkpoint shows what staleness costs.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ranker.distributed import Process, agree
from ranker.model import RankingModel
from ranker.modules.projections import Projections
from ranker.search_cache import field_sizes, project_ids, weights_by_field
from ranker.sequence.twin import TWIN
from ranker_data.schema import Schema

INDEX_FILE = "projections.json"


def write_projections(
    model: RankingModel, schema: Schema, *, step: int, out: Path, process: Process
) -> dict[str, int]:
    """Projects every id of the inherent fields, for every TWIN encoder; every rank calls it.

    Args:
        model: with the checkpoint's weights, sharded.
        schema: of the data set.
        step: of the checkpoint.
        out: folder to write; must not exist.
        process: this process; rank 0 writes.

    Returns:
        The number of projected ids by field.

    Raises:
        ValueError: nothing can be projected, or the folder exists.
    """
    encoders = _twin_encoders(model)
    sizes = _field_sizes(model, schema)
    # all ranks look before one of them writes
    agree(lambda: _check_absent(out), ValueError)
    for name, encoder in encoders.items():
        weights = weights_by_field(encoder.attention.key_weight, model.body.behavior.blocks)
        stores = {}
        if process.is_main:
            width = encoder.attention.num_heads * encoder.attention.head_dim
            stores = {
                field: _create(out / name / f"{field}.npy", (size, width))
                for field, size in sizes.items()
            }
        for field, begin, projected in project_ids(model.embedding, schema, weights, sizes):
            if process.is_main:
                stores[field][begin : begin + len(projected)] = projected.cpu().numpy()
        for store in stores.values():
            store.flush()
    if process.is_main:
        # last: a folder without it is not a store
        index = {
            "step": step,
            "dataset": schema.name,
            "encoders": {
                name: {"num_heads": encoder.attention.num_heads, "fields": sizes}
                for name, encoder in encoders.items()
            },
        }
        (out / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return sizes


def _create(path: Path, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[np.float32]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)


def _check_absent(out: Path) -> None:
    if out.exists():
        raise ValueError(f"out={out} exists; choose another folder, or delete it")


def use_projections(model: RankingModel, folder: Path, schema: Schema) -> None:
    """Makes the TWIN encoders of a model search in a store; vectors are read when they are used.

    Raises:
        ValueError: the folder is no store, or belongs to another model.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        raise ValueError(f"projections={folder} has no {INDEX_FILE}; make it with project_items.py")
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    sizes = _field_sizes(model, schema)
    for name, encoder in _twin_encoders(model).items():
        entry = index["encoders"].get(name)
        wanted = {"num_heads": encoder.attention.num_heads, "fields": sizes}
        if entry != wanted:
            raise ValueError(
                f"projections={folder} holds {entry} for sequence.{name}; this run has {wanted}"
            )
        vectors = {field: _open(folder / name / f"{field}.npy") for field in sizes}
        _check_width(folder, name, vectors, encoder)
        encoder.projections = Projections(vectors)


def _open(path: Path) -> Tensor:
    # copy-on-write: torch wants writable memory, and nothing writes to it
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _check_width(folder: Path, name: str, vectors: Mapping[str, Tensor], encoder: TWIN) -> None:
    heads, width = encoder.attention.num_heads, encoder.attention.head_dim
    for field, stored in vectors.items():
        if stored.shape[1] != heads * width:
            raise ValueError(
                f"projections={folder}: {name}/{field} has width {stored.shape[1]}; "
                f"sequence.{name} has {heads} heads of width {width}"
            )


def _twin_encoders(model: RankingModel) -> dict[str, TWIN]:
    found = {n: e for n, e in model.body.encoders.items() if isinstance(e, TWIN)}
    if not found:
        raise ValueError("the run has no TWIN encoder; projections are what its search reads")
    return found


def _field_sizes(model: RankingModel, schema: Schema) -> dict[str, int]:
    return field_sizes(schema, [name for name, _ in model.body.behavior.blocks])
