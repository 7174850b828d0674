"""Reads distributed checkpoints without executing anything that they contain.

torch.distributed.checkpoint reads `.metadata` with a plain pickle and non-tensor entries with an
unsafe `torch.load`; both run code that a hostile file brings along. Here the metadata's unpickler
knows a fixed list of types, and an entry that is no tensor is refused: our checkpoints keep
everything else in JSON.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    Metadata,
    StorageMeta,
)
from torch.distributed.checkpoint.planner import ReadItem

_METADATA = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    (_METADATA, "Metadata"),
    (_METADATA, "MetadataIndex"),
    (_METADATA, "TensorStorageMetadata"),
    (_METADATA, "ChunkStorageMetadata"),
    (_METADATA, "TensorProperties"),
    (_METADATA, "BytesStorageMetadata"),
    (_METADATA, "StorageMeta"),
    (_METADATA, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
}


def _memory_format(owner: Any, name: str) -> Any:
    """Stands in for getattr, by which some Python versions pickle the member of an enumeration."""
    if owner is not _MEM_FORMAT_ENCODING:
        raise OSError(f"refused: the checkpoint's metadata asks for an attribute of {owner!r}")
    return owner[name]


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _memory_format
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) not in _ALLOWED and not is_dtype:
            raise OSError(f"refused: the checkpoint's metadata names {module}.{name}")
        return super().find_class(module, name)


class TensorsOnlyReader(FileSystemReader):
    """A reader whose metadata can only hold the types of a checkpoint."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Reads `.metadata` through the restricted unpickler."""
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            metadata = _MetadataUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise OSError("refused: the checkpoint's metadata is of another type")
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class TensorsOnlyLoadPlanner(DefaultLoadPlanner):
    """A planner that loads tensors and nothing else."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Refuses an entry that is no tensor.

        Raises:
            OSError: always.
        """
        raise OSError(f"refused: {read_item.dest_index.fqn} is no tensor")
