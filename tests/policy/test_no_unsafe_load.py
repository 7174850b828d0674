"""Nothing loads or runs what it finds in a file: no pickle, no eval, no shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOTS = ("ranker", "data/ranker_data", "kernels", "scripts")
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
ALLOWED = {
    # its unpickler knows a fixed list of types; tests/ranker/test_safe_storage.py attacks it
    ("ranker/safe_storage.py", "import pickle"),
    # a socket pair between a process and its own data workers; nothing comes from a file
    ("data/ranker_data/channel.py", "import pickle"),
}
# a plain name that runs text, and attributes that load objects or read YAML with tags
NAMES = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.jit", "load"),
    ("yaml", "load"),
    ("yaml", "full_load"),
    ("yaml", "unsafe_load"),
    ("os", "system"),
    ("os", "popen"),
}


def unsafe(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {a.name}" for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield f"import {node.module}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            owner, _, name = called.rpartition(".")
            if called in NAMES or (owner, name) in ATTRIBUTES:
                yield called
            for keyword in node.keywords:
                given = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                if given and keyword.arg in ("allow_pickle", "shell"):
                    yield f"{called}({keyword.arg}=True)"


def test_no_file_loads_or_runs_what_it_reads(project_root: Path) -> None:
    found = {
        (str(path.relative_to(project_root)), what)
        for root in ROOTS
        for path in (project_root / root).rglob("*.py")
        for what in unsafe(ast.parse(path.read_text()))
    }
    assert found == ALLOWED


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_rule_sees_it(line: str) -> None:
    assert list(unsafe(ast.parse(line)))


def test_the_linter_refuses_the_same(project_root: Path) -> None:
    # S301 pickle, S307 eval, S506 yaml.load, S602 shell: the family is on and none is ignored
    text = (project_root / "pyproject.toml").read_text()
    assert '"S"' in text
    assert not any(f'"{rule}"' in text for rule in ("S301", "S307", "S506", "S602", "S614"))
