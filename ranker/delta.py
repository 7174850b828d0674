"""What changed between two checkpoints: rows of tables by id, other tensors whole.

A server that holds the first export applies the deltas in order and has the last one, to the bit.
The file is a safetensors file: `<tensor>:ids` [n] and `<tensor>:rows` [n, D] for a table,
`<tensor>` for anything else that changed.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ranker.checkpoint_files import CheckpointError
from ranker.checkpoint_tensors import read_tensors, tensor_shapes
from ranker.export import read_safetensors, write_safetensors
from ranker.table_names import is_table

_PREFIX = "model."
_IDS, _ROWS = ":ids", ":rows"


def write_delta(old: Path, new: Path, out: Path) -> dict[str, int]:
    """Writes what of a checkpoint's weights differs from an older one of the same model.

    One tensor of each is in memory at a time. What is written is applied to the old tensors and
    compared with the new ones.

    Args:
        old: checkpoint.
        new: checkpoint.
        out: file to write.

    Returns:
        Changed rows of each table that has any, by its name in the file.

    Raises:
        CheckpointError: the models differ.
    """
    shapes = {key: value for key, value in tensor_shapes(new).items() if key.startswith(_PREFIX)}
    before = {key: value for key, value in tensor_shapes(old).items() if key.startswith(_PREFIX)}
    if shapes != before:
        raise CheckpointError(f"{old} and {new} are of different models; export {new} as a whole")
    delta: dict[str, Tensor] = {}
    changed: dict[str, int] = {}
    for key in shapes:
        name = key.removeprefix(_PREFIX)
        base, value = read_tensors(old, [key])[key], read_tensors(new, [key])[key]
        part = _difference(name, base, value)
        assert torch.equal(apply_delta({name: base}, part)[name], value)
        delta |= part
        if name + _IDS in part:
            changed[name] = len(part[name + _IDS])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(out, delta)
    return changed


def _difference(name: str, base: Tensor, value: Tensor) -> dict[str, Tensor]:
    if torch.equal(base, value):
        return {}
    if not is_table(name):
        return {name: value}
    ids = (base != value).any(dim=1).nonzero().flatten()
    return {name + _IDS: ids, name + _ROWS: value[ids]}


def read_delta(path: Path) -> dict[str, Tensor]:
    """Reads a delta."""
    return read_safetensors(path)


def apply_delta(base: Mapping[str, Tensor], delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors after a delta.

    Args:
        base: tensors before it, by name.
        delta: of `read_delta`; tensors that `base` does not have are left out.
    """
    result = dict(base)
    for name, value in delta.items():
        if name.endswith(_IDS):
            table = name.removesuffix(_IDS)
            if table in base:
                result[table] = base[table].index_copy(0, value, delta[table + _ROWS])
        elif not name.endswith(_ROWS) and name in base:
            result[name] = value
    return result
