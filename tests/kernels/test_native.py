import ctypes
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ranker_kernels import native
from ranker_kernels.din_attention import ActivationUnit, din_attention

# what a process of its own does: build, load, say whether it has it
PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from ranker_kernels.native import SOURCES, load_library
print("loaded", load_library(SOURCES / "embedding_rows.cpp") is not None)
"""

ROWS = native.SOURCES / "embedding_rows.cpp"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and nothing loaded from another one."""
    monkeypatch.setenv(native.CACHE, str(tmp_path / "cache"))
    native._load.cache_clear()
    yield tmp_path / "cache"
    native._load.cache_clear()


def start() -> "subprocess.Popen[str]":
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_processes_that_build_at_once_all_get_a_whole_library(cache: Path) -> None:
    processes = [start() for _ in range(3)]
    for process in processes:
        output, _ = process.communicate(timeout=200)
        assert "loaded True" in output
    # one file, and nothing unfinished beside it
    assert [path.suffix for path in cache.iterdir()] == [".so"]
    output, _ = start().communicate(timeout=200)
    assert "compiled" not in output
    assert cache.stat().st_mode & 0o077 == 0


# sums the pieces, and lacks memory from one of them on; says whether OpenMP's threads do it
PIECES = """
#include <new>
#include "{folder}/parallel.h"
extern "C" int has_team() {{ return find_team() != nullptr; }}
extern "C" int sum_pieces(int64_t pieces, int64_t threads, int64_t failing, int64_t* sum) {{
    std::atomic<int64_t> total{{0}};
    const int code = guarded([&] {{
        run_pieces(pieces, threads, [&](int64_t piece, int64_t worker) {{
            if (piece >= failing || worker >= threads) throw std::bad_alloc();
            total += piece;
        }});
    }});
    *sum = total;
    return code;
}}
"""


@pytest.fixture
def pieces(tmp_path: Path) -> ctypes.CDLL:
    source = tmp_path / "pieces.cpp"
    source.write_text(PIECES.format(folder=native.SOURCES))
    library = native.load_library(source)
    assert library is not None
    return library


def sum_pieces(library: ctypes.CDLL, count: int, threads: int, failing: int) -> int | None:
    """Returns the sum, or None where memory ran out."""
    total = ctypes.c_int64()
    arguments = map(ctypes.c_int64, (count, threads, failing))
    return None if library.sum_pieces(*arguments, ctypes.byref(total)) else total.value


@pytest.mark.parametrize("threads", [1, 4])
def test_a_thread_without_memory_is_told_and_ends_nothing(
    pieces: ctypes.CDLL, threads: int
) -> None:
    assert sum_pieces(pieces, 1000, threads, failing=1000) == 1000 * 999 // 2
    assert sum_pieces(pieces, 1000, threads, failing=0) is None
    assert sum_pieces(pieces, 0, threads, failing=0) == 0


def test_the_threads_of_pytorch_do_the_work_where_it_has_openmp(pieces: ctypes.CDLL) -> None:
    has_openmp = torch.backends.openmp.is_available()  # type: ignore[no-untyped-call]
    assert bool(pieces.has_team()) == has_openmp


# without PyTorch, or in the child of a process whose threads did work before it was forked
OWN_THREADS = """
import ctypes, os, sys
library, forked = ctypes.CDLL(sys.argv[1]), sys.argv[2] == "forked"
total, arguments = ctypes.c_int64(), [ctypes.c_int64(n) for n in (1000, 4, 1000)]
if forked:
    import torch
    torch.set_num_threads(4)
    torch.ones(1_000_000).exp()
if not forked or os.fork() == 0:
    assert not library.has_team()
    assert library.sum_pieces(*arguments, ctypes.byref(total)) == 0
    os._exit(0 if total.value == 499500 else 1)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.parametrize("where", ["without", "forked"])
def test_where_pytorch_has_no_threads_others_are_started(pieces: ctypes.CDLL, where: str) -> None:
    command = [sys.executable, "-c", OWN_THREADS, pieces._name, where]
    assert subprocess.run(command, timeout=60).returncode == 0


def attend() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    unit = ActivationUnit(
        activation="sigmoid",
        weights=(torch.randn(6, 16, generator=generator), torch.randn(1, 6, generator=generator)),
        biases=(torch.zeros(6), torch.zeros(1)),
    )
    query, behaviors = (torch.randn(n, 4, generator=generator) for n in (2, 9))
    return din_attention(query, behaviors, torch.tensor([[0, 5], [3, 9]]), unit)[0]


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("no-such-compiler", "no C++ compiler 'no-such-compiler'"), ("false", "exit status 1")],
)
def test_without_a_compiler_pytorch_does_the_work_and_it_is_said_once(
    compiler: str,
    reason: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(native.SWITCH, "0")
    expected = attend()
    monkeypatch.delenv(native.SWITCH)
    monkeypatch.setenv("CXX", compiler)
    with caplog.at_level(logging.WARNING):
        outputs = [attend() for _ in range(3)]
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert native.SWITCH in record.getMessage()
    for output in outputs:
        assert torch.equal(output, expected)


def test_a_source_that_does_not_compile_is_told_with_the_compilers_words(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "broken.cpp").write_text("int main() { return nonsense; }")
    assert native.load_library(tmp_path / "broken.cpp") is None
    assert "nonsense" in caplog.text
    assert not list(cache.iterdir())


def test_the_switch_turns_it_off_without_a_word(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.load_library(ROWS) is None
    assert not caplog.records
    assert not cache.exists()


def test_another_source_compiler_or_processor_is_another_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, header = tmp_path / "some.cpp", tmp_path / "some.h"
    source.write_text("a")
    header.write_text("b")
    compiler = native._find_compiler()
    keys = [native._key(source, compiler)]
    source.write_text("aa")
    keys.append(native._key(source, compiler))
    header.write_text("bb")
    keys.append(native._key(source, compiler))
    monkeypatch.setattr(native, "_describe_processor", lambda: "another")
    keys.append(native._key(source, compiler))
    keys.append(native._key(source, sys.executable))
    assert len(set(keys)) == len(keys)


def test_a_damaged_library_is_built_again(cache: Path) -> None:
    assert isinstance(native.load_library(ROWS), ctypes.CDLL)
    native._load.cache_clear()
    (path,) = cache.iterdir()
    # another file under the name: the one that is mapped must stay
    damaged = path.with_suffix(".damaged")
    damaged.write_bytes(b"not a library")
    damaged.replace(path)
    assert isinstance(native.load_library(ROWS), ctypes.CDLL)


def test_what_another_process_has_built_meanwhile_stays(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(native.load_library(ROWS), ctypes.CDLL)
    native._load.cache_clear()
    (path,) = cache.iterdir()
    ready = path.read_bytes()
    path.unlink()
    run = native._run

    def run_beside_another(command: list[str]) -> str:
        output = run(command)
        if str(ROWS) in command:
            path.write_bytes(ready)
        return output

    monkeypatch.setattr(native, "_run", run_beside_another)
    written: list[int] = []
    monkeypatch.setattr(os, "replace", lambda *_: written.append(1))
    assert isinstance(native.load_library(ROWS), ctypes.CDLL)
    assert list(cache.iterdir()) == [path]
    assert not written


@pytest.mark.parametrize("chosen", [True, False])
def test_a_user_without_a_home_needs_a_cache(
    chosen: bool,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def has_none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", has_none)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if not chosen:
        monkeypatch.delenv(native.CACHE)
    assert (native.load_library(ROWS) is not None) == chosen
    assert ("this user has no home folder" in caplog.text) != chosen
    assert (
        f"name a folder of your own for what it makes in {native.CACHE}" in caplog.text
    ) != chosen


def test_a_cache_that_others_may_write_to_is_refused(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    assert native.load_library(ROWS) is None
    assert f"others may write to {cache}" in caplog.text


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_named(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir(mode=0o500)
    assert native.load_library(ROWS) is None
    assert str(cache) in caplog.text
