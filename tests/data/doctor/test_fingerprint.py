import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ranker_data.doctor.fingerprint import check_run_files, check_same_files, fingerprint_files
from ranker_data.layout import behaviors_path, samples_path
from ranker_data.reader import DataError


@pytest.fixture
def data(tiny_dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dataset, tmp_path / "data"))


def test_a_copy_is_the_same_data(data: Path, tmp_path: Path) -> None:
    found = fingerprint_files(data)
    assert len(found) == 1 + 4 * 4
    copy = shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copy)
    assert fingerprint_files(Path(copy)) == found


def test_every_change_is_named(data: Path) -> None:
    before = fingerprint_files(data)
    path = samples_path(data, "train", 1)
    table = pq.read_table(path, partitioning=None)
    index = table.column_names.index("click")
    clicks = table["click"].to_numpy().copy()
    clicks[0] = 1 - clicks[0]
    # as many bytes as before may be written: the footer has checks of its own
    pq.write_table(table.set_column(index, table.schema.field("click"), [clicks]), path)
    shutil.copy(behaviors_path(data, 3), behaviors_path(data, 4))
    samples_path(data, "valid", 3).unlink()
    text = (data / "schema.yaml").read_text()
    (data / "schema.yaml").write_text(text.replace("tiny", "tinu"))
    with pytest.raises(DataError) as error:
        check_same_files(fingerprint_files(data), before, "then")
    assert str(error.value).splitlines()[:5] == [
        "the data is not what it was then, 4 difference(s):",
        "  schema.yaml changed",
        "  samples/train/part-00001.parquet changed",
        "  samples/valid/part-00003.parquet is missing",
        "  behaviors/part-00004.parquet is new",
    ]


def test_a_run_remembers_what_it_began_with(tmp_path: Path) -> None:
    path = tmp_path / "files.json"
    check_run_files(path, {"a": "1"}, write=False)
    assert not path.exists()
    check_run_files(path, {"a": "1"}, write=True)
    check_run_files(path, {"a": "1"}, write=True)
    with pytest.raises(DataError, match=r"(?s)when the run began.*a changed.*begin a new run"):
        check_run_files(path, {"a": "2"}, write=True)
    assert [file.name for file in tmp_path.iterdir()] == ["files.json"]


def test_a_file_that_cannot_be_read_is_named(data: Path) -> None:
    samples_path(data, "train", 0).unlink()
    samples_path(data, "train", 0).mkdir()
    with pytest.raises(DataError, match=r"part-00000.parquet cannot be read"):
        fingerprint_files(data)
