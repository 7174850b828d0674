import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ranker.logging import RunLog, read_records


def write(run_dir: Path, resume_step: int, steps: range) -> None:
    log = RunLog(run_dir, total_steps=10, batch_size=4, resume_step=resume_step, enabled=True)
    for step in steps:
        log.step()
        log.record("train", step, {"loss": 1.0 / step})
    log.record("valid", steps[-1], {"ctr.auc": None, "ctr.logloss": 0.5})
    log.close()


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 7))
    # the run was killed in the middle of a line, and goes on from the checkpoint of step 4
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')
    write(tmp_path, 4, range(5, 9))
    records = read_records(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 9))
    assert json.dumps(records[-1]) == json.dumps(
        {"kind": "valid", "step": 8, "ctr.auc": None, "ctr.logloss": 0.5}
    )
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("train/loss")] == list(range(1, 9))
    assert "valid/ctr.auc" not in board.Tags()["scalars"]
