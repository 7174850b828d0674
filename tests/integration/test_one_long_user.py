"""One user with far more behaviours than all others together: prepared, clustered, trained on."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ranker.metrics.auc import auc
from ranker.report.predictions import read_predictions
from ranker_data.datasets.custom import CustomConverter

NUM_EVENTS, NUM_ITEMS, START = 30_000, 50, 1_700_000_000
DESCRIPTION = """
name: long
fields:
  - {name: user_id, kind: id, side: user, table: user}
  - {name: item_id, kind: id, table: item}
behaviors:
  - {name: item_id, kind: id, table: item}
  - {name: dwell, kind: dense}
labels:
  - {name: click}
tasks:
  - {name: ctr, label: click}
split: {valid_fraction: 0.2, test_fraction: 0.2}
samples: {files: shown.parquet, columns: {user: u, time: t, user_id: u, item_id: i, click: c}}
events: {files: log.parquet, columns: {user: u, time: t, item_id: i, dwell: d}}
"""


def write_source(root: Path) -> Path:
    """User 0 has almost all events; the even items are what users stay with, and click."""
    root.mkdir()
    generator = np.random.default_rng(0)
    user = np.concatenate([np.zeros(NUM_EVENTS, np.int64), np.arange(200) % 20])
    item = generator.integers(NUM_ITEMS, size=len(user))
    dwell = np.where(item % 2 == 0, 3.0, 0.0) + generator.normal(size=len(user))
    log = {"u": user, "t": START + np.arange(len(user)), "i": item, "d": dwell}
    pq.write_table(pa.table(log), root / "log.parquet")
    count = 1_500
    shown_item = generator.integers(NUM_ITEMS, size=count)
    shown = {
        "u": generator.integers(20, size=count) * (generator.random(count) < 0.5),
        "t": START + len(user) + np.arange(count),
        "i": shown_item,
        "c": (generator.random(count) < np.where(shown_item % 2 == 0, 0.9, 0.1)).astype(np.int64),
    }
    pq.write_table(pa.table(shown), root / "shown.parquet")
    (root / "dataset.yaml").write_text(DESCRIPTION)
    return root


def test_one_user_has_almost_all_events(
    make_runner: Callable[[Path], Any], project_root: Path, tmp_path: Path
) -> None:
    data, clustered = tmp_path / "data", tmp_path / "clustered"
    CustomConverter(num_parts=4).prepare(write_source(tmp_path / "raw"), data)
    longest = json.loads((data / "stats.json").read_text())["samples"]["train"]["history_length"]
    assert longest["max"] > NUM_EVENTS
    options = ["sequence=[twin]", "sequence.twin.k=20", f"loader.max_length={10 * NUM_EVENTS}"]
    options += ["trainer.epochs=1", "optimizer.sparse_lr=0.5", "optimizer.dense_lr=0.01"]
    options += ["trainer.checkpoint_every_steps=1000"]
    make_runner(data).alone("twin", *options)
    run = tmp_path / "runs" / "twin"

    script = [sys.executable, str(project_root / "scripts" / "cluster_histories.py")]
    script += ["--source", str(data), "--out", str(clustered), "--run", str(run)]
    script += ["--group-field", "dwell", "--group-edges", "1.5"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    summary = json.loads((clustered / "clustering.json").read_text())
    assert summary["num_events"] > NUM_EVENTS
    assert summary["num_clusters"] < 0.2 * NUM_EVENTS
    make_runner(clustered).alone("twin_v2", *options)

    for name in ("twin", "twin_v2"):
        script = [sys.executable, str(project_root / "scripts" / "evaluate.py")]
        script += [f"run={tmp_path / 'runs' / name}", "num_replicates=20"]
        done = subprocess.run(script, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / "runs" / name / "evaluations" / "test"
        assert json.loads((folder / "search.json").read_text())["hit_rate"] == 1.0
        task = read_predictions(folder / "predictions.parquet").tasks["ctr"]
        assert float(auc(task.logit, task.label)) > 0.7
