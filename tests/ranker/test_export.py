from pathlib import Path

import pytest
import torch

from ranker.export import encode_header, read_safetensors


def test_a_file_of_the_format_is_read(tmp_path: Path) -> None:
    # written by hand after the format's description
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    path = tmp_path / "a.safetensors"
    path.write_bytes(encode_header(header) + b"\x00\x00\x80\x3f\x00\x00\x00\x40")
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    assert torch.equal(read_safetensors(path)["a"], torch.tensor([1.0, 2.0]))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    path = tmp_path / "a.safetensors"
    path.write_bytes(encode_header(header) + b"\x00")
    with pytest.raises(ValueError, match="its header describes another size"):
        read_safetensors(path)
    path.write_bytes(b"\xff" * 8)
    with pytest.raises(ValueError, match="is no safetensors file"):
        read_safetensors(path)
