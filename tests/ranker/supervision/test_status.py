import json
from pathlib import Path

import torch

from ranker.distributed import Process
from ranker.supervision.status import RunStatus


def read(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "status.json").read_text())
    return found


def test_a_status_shows_the_end_of_a_run(tmp_path: Path) -> None:
    status = RunStatus(tmp_path, Process(0, 2, torch.device("cpu")))
    status.update(step=7, total_steps=10)
    status.beat()
    running = read(tmp_path)
    assert (running["state"], running["step"], running["exit_code"]) == ("running", 7, None)
    status.end("failed", 4, "no space", resumable=True)
    ended = read(tmp_path)
    assert (ended["state"], ended["exit_code"], ended["reason"]) == ("failed", 4, "no space")
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_only_rank_0_beats_but_any_rank_can_tell_the_end(tmp_path: Path) -> None:
    status = RunStatus(tmp_path, Process(1, 2, torch.device("cpu")))
    status.beat()
    assert not (tmp_path / "status.json").exists()
    status.end("failed", 6, "rank 0 is gone", resumable=True)
    assert read(tmp_path)["exit_code"] == 6


def test_a_status_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    status = RunStatus(tmp_path / "missing", Process(0, 1, torch.device("cpu")))
    status.beat()
    assert not (tmp_path / "missing").exists()
    # the next beat writes as soon as it can
    (tmp_path / "missing").mkdir()
    status.beat()
    assert read(tmp_path / "missing")["state"] == "running"
