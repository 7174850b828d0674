"""Exports a checkpoint's weights in an open format: safetensors files and JSON.

A safetensors file is the length of its header (8 bytes, little endian), the header (JSON: for each
tensor its dtype, shape and place in the data) and the data. It holds no code, and any framework
reads it. https://huggingface.co/docs/safetensors
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ranker.checkpoint_files import (
    STATE,
    CheckpointError,
    describe_files,
    verify_checkpoint,
    write_json,
)
from ranker.checkpoint_tensors import read_tensors, tensor_shapes

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# the data begins at a multiple of this
_ALIGNMENT = 8
_MODEL = "model."
_OPTIMIZER = "optimizer."


def export_checkpoint(path: Path, out: Path, *, config: Path, optimizer: bool) -> list[Path]:
    """Writes a checkpoint as `model.safetensors` (and `optimizer.safetensors`) with JSON beside.

    One tensor at a time is in memory.

    Args:
        path: of the checkpoint; it is verified first.
        out: folder to make.
        config: the run's config.yaml, copied along.
        optimizer: export the optimizers' state as well.

    Returns:
        The files.

    Raises:
        CheckpointError: the checkpoint is damaged, or the folder exists or cannot be written.
    """
    problem = verify_checkpoint(path)
    if problem is not None:
        raise CheckpointError(f"{problem}; export another checkpoint")
    shapes = tensor_shapes(path)
    try:
        out.mkdir(parents=True)
        files = []
        for prefix in (_MODEL, _OPTIMIZER) if optimizer else (_MODEL,):
            keys = [key for key in shapes if key.startswith(prefix)]
            files.append(out / f"{prefix}safetensors")
            _write(path, keys, prefix, files[-1])
        files += [
            Path(shutil.copyfile(source, out / source.name)) for source in (path / STATE, config)
        ]
        index = {"checkpoint": path.name, "files": describe_files(files)}
        write_json(out / "export.json", index)
    except OSError as error:
        raise CheckpointError(
            f"{out} cannot be written ({error.strerror}); give another folder with --out"
        ) from error
    return [*files, out / "export.json"]


def _write(checkpoint: Path, keys: Sequence[str], prefix: str, path: Path) -> None:
    shapes = tensor_shapes(checkpoint)
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "checkpoint": checkpoint.name}}
    end = 0
    for key in keys:
        dtype, size = shapes[key]
        begin, end = end, end + size.numel() * dtype.itemsize
        header[key.removeprefix(prefix)] = {
            "dtype": _DTYPES[dtype],
            "shape": list(size),
            "data_offsets": [begin, end],
        }
    with path.open("wb") as file:
        file.write(encode_header(header))
        for key in keys:
            file.write(_bytes(read_tensors(checkpoint, [key])[key]))


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors that are in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[key] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    with path.open("wb") as file:
        file.write(encode_header(header))
        for tensor in tensors.values():
            file.write(_bytes(tensor))


def encode_header(header: Mapping[str, Any]) -> bytes:
    """Returns the length and the header, padded with spaces."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        ValueError: it is no such file, or truncated.
    """
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    begin = 8 + length
    if len(data) < 8 or begin > len(data):
        raise ValueError(f"{path} is no safetensors file: its header is longer than the file")
    header = json.loads(data[8:begin])
    header.pop("__metadata__", None)
    ends = [entry["data_offsets"][1] for entry in header.values()]
    if begin + max(ends, default=0) != len(data):
        raise ValueError(f"{path} has {len(data)} bytes, its header describes another size")
    dtypes = {name: dtype for dtype, name in _DTYPES.items()}
    tensors = {}
    for key, entry in header.items():
        low, high = entry["data_offsets"]
        raw = torch.frombuffer(bytearray(data[begin + low : begin + high]), dtype=torch.uint8)
        tensors[key] = raw.view(dtypes[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
