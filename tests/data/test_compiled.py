import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ranker_data import compiled
from ranker_data.compiled import compiled_library


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    forget()
    path = tmp_path / "answer.c"
    path.write_text("int answer(void) { return 42; }\n")
    yield path
    forget()


def forget() -> None:
    compiled.compiled_library.cache_clear()
    compiled._own_folder.cache_clear()


def test_a_library_is_compiled_once(source: Path) -> None:
    library = compiled_library(source)
    assert library is not None
    assert ctypes.CDLL(str(library)).answer() == 42
    made = library.stat().st_mtime_ns
    forget()
    assert compiled_library(source) == library
    assert library.stat().st_mtime_ns == made
    # nothing unfinished is left
    assert [path.name for path in library.parent.iterdir()] == [library.name]
    assert library.parent.stat().st_mode & 0o077 == 0


def test_another_source_is_another_library(source: Path) -> None:
    first = compiled_library(source)
    source.write_text("int answer(void) { return 43; }\n")
    forget()
    second = compiled_library(source)
    assert first != second
    assert second is not None
    assert ctypes.CDLL(str(second)).answer() == 43


def test_a_damaged_library_is_compiled_again(source: Path) -> None:
    library = compiled_library(source)
    assert library is not None
    # a file of its own: this process still has the other one mapped
    library.unlink()
    library.write_bytes(b"half of a library")
    forget()
    assert compiled_library(source) == library
    assert library.read_bytes().startswith(b"\x7fELF")


def test_a_folder_that_others_may_write_to_is_not_trusted(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "ctr-ranker"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    library = compiled_library(source)
    assert library is not None
    assert folder not in library.parents
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("compiler", "text", "message"),
    [
        ("no-such-compiler", "int x;", "there is no C compiler 'no-such-compiler'"),
        ("", "this is not C", "does not compile answer.c"),
        ("false", "int x;", "does not compile answer.c"),
    ],
)
def test_without_a_compiler_it_is_said_once(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    compiler: str,
    text: str,
    message: str,
) -> None:
    source.write_text(text)
    monkeypatch.setenv("CC", compiler)
    with caplog.at_level(logging.WARNING):
        assert compiled_library(source) is None
        assert compiled_library(source) is None
    assert len(caplog.records) == 1
    assert message in caplog.text
    assert "numpy" in caplog.text
