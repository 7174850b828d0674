"""A hostile checkpoint never executes code."""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path, PosixPath
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ranker.distributed import process_group
from ranker.safe_storage import (
    TensorsOnlyLoadPlanner,
    TensorsOnlyReader,
    _MetadataUnpickler,
)


class Payload:
    """Writes a canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


@pytest.fixture(autouse=True)
def one_process() -> Iterator[None]:
    with process_group("cpu"):
        yield


def read(path: Path, state: dict[str, Any]) -> None:
    load(state, storage_reader=TensorsOnlyReader(path), planner=TensorsOnlyLoadPlanner())


def test_tensors_are_read(tmp_path: Path) -> None:
    save({"a": torch.arange(6.0)}, checkpoint_id=tmp_path)
    state = {"a": torch.zeros(6)}
    read(tmp_path, state)
    assert state["a"].tolist() == list(range(6))


def test_code_in_the_metadata_is_refused(tmp_path: Path) -> None:
    save({"a": torch.arange(6.0)}, checkpoint_id=tmp_path)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Payload(tmp_path / "canary")))
    with pytest.raises(BaseException, match=r"refused: the checkpoint's metadata names"):
        read(tmp_path, {"a": torch.zeros(6)})
    assert not (tmp_path / "canary").exists()


class Attribute:
    """Asks for an attribute by getattr, as pickles of enumeration members do."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> Any:
        return (getattr, (self.owner, self.name))


def unpickle(value: Any) -> Any:
    return _MetadataUnpickler(io.BytesIO(pickle.dumps(value))).load()


def test_getattr_reaches_memory_formats_only() -> None:
    member = _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT
    assert unpickle(member) is member
    assert unpickle(Attribute(_MEM_FORMAT_ENCODING, member.name)) is member
    with pytest.raises(OSError, match=r"refused: .* asks for an attribute of"):
        unpickle(Attribute(PosixPath, "unlink"))
    with pytest.raises(OSError, match=r"refused: .* asks for an attribute of"):
        unpickle(Attribute(torch.Size, "__class__"))


def test_code_in_an_entry_is_refused(tmp_path: Path) -> None:
    save({"a": Payload(tmp_path / "canary")}, checkpoint_id=tmp_path)
    (tmp_path / "canary").unlink(missing_ok=True)
    with pytest.raises(BaseException, match="refused: a is no tensor"):
        read(tmp_path, {"a": Payload(tmp_path / "other")})
    assert not (tmp_path / "canary").exists()
