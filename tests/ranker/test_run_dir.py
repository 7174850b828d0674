import json
from pathlib import Path

import pytest

from ranker.run_dir import RunDir, RunDirError, claim_run_dir


def test_a_run_directory_says_how_the_run_was_made(tmp_path: Path) -> None:
    with claim_run_dir(tmp_path / "run", {"seed": 1, "head": {"task": "ctr"}}) as run:
        assert run.read_config() == {"seed": 1, "head": {"task": "ctr"}}
    environment = json.loads((tmp_path / "run" / "env.json").read_text())
    assert environment["packages"]["torch"].startswith("2.")
    assert {"command", "world_size", "git_commit"} <= environment.keys()


def test_free_keys_may_change_between_launches(tmp_path: Path) -> None:
    first = {"seed": 1, "trainer": {"epochs": 1}, "head": {"task": "ctr"}}
    with claim_run_dir(tmp_path / "run", first):
        pass
    with claim_run_dir(tmp_path / "run", {**first, "trainer": {"epochs": 2}}) as run:
        assert run.read_config()["trainer"] == {"epochs": 2}
    with (
        pytest.raises(RunDirError, match=r"head\.task: 'ctr' -> 'cvr'\n  seed: 1 -> 2"),
        claim_run_dir(tmp_path / "run", {**first, "seed": 2, "head": {"task": "cvr"}}),
    ):
        pass


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"it has no config\.yaml; give run="):
        RunDir(tmp_path).read_config()
