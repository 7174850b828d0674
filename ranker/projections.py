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
from torchrec import KeyedJaggedTensor

from ranker.distributed import Process, agree
from ranker.model import RankingModel
from ranker.modules.projections import Projections
from ranker.sequence.twin import TWIN
from ranker_data.batch import BEHAVIOR_PREFIX
from ranker_data.schema import Schema

INDEX_FILE = "projections.json"
_IDS_AT_ONCE = 1 << 16


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
        weights = _weights_by_field(model, encoder)
        for field, size in sizes.items():
            store = None
            if process.is_main:
                path = out / name / f"{field}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                heads, _, width = weights[field].shape
                store = np.lib.format.open_memmap(
                    path, mode="w+", dtype=np.float32, shape=(size, heads * width)
                )
            for begin in range(0, size, _IDS_AT_ONCE):
                ids = torch.arange(begin, min(begin + _IDS_AT_ONCE, size), device=process.device)
                vectors = _look_up(model, BEHAVIOR_PREFIX + field, ids)
                projected = torch.einsum("vd,hde->vhe", vectors, weights[field]).flatten(1)
                if store is not None:
                    store[begin : begin + len(ids)] = projected.float().cpu().numpy()
            if store is not None:
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
    heads, _, width = encoder.attention.key_weight.shape
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
    """Returns the number of ids of every inherent field, in the order of K_h."""
    tables = {field.name: field for field in schema.inherent_behaviors}
    sizes = {}
    for name, _ in model.body.behavior.blocks:
        field = tables[name]
        size = schema.table(field.table).num_embeddings if field.table else None
        if field.kind != "id" or size is None:
            raise ValueError(
                f"behavior field {name!r} cannot be projected beforehand: it must have one id a "
                "behavior and a table of known size"
            )
        sizes[name] = size
    return sizes


def _weights_by_field(model: RankingModel, encoder: TWIN) -> dict[str, Tensor]:
    """Returns the rows of W^h, [H, D_f, d], that belong to each field."""
    names, widths = zip(*model.body.behavior.blocks, strict=True)
    parts = torch.split(encoder.attention.key_weight.detach(), list(widths), dim=1)
    return dict(zip(names, parts, strict=True))


@torch.no_grad()
def _look_up(model: RankingModel, key: str, ids: Tensor) -> Tensor:
    """Returns the vectors [ids, D_f] of a key."""
    keys = list(model.embedding.sources)
    lengths = [len(ids) if other == key else 0 for other in keys]
    jagged = KeyedJaggedTensor(
        keys=keys, values=ids, lengths=torch.tensor(lengths, device=ids.device)
    )
    return model.embedding.sources[key].take(model.embedding(jagged))
