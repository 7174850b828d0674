from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ranker.report.board import hyperparameters, write_evaluation_summary
from ranker.report.context import ReportContext, TaskContext
from ranker.report.predictions import Predictions
from ranker.report.report import build_report


def test_nested_scalars_become_hyperparameters() -> None:
    config = {"seed": 1, "a": {"b": 0.5, "c": None, "token": "x"}, "units": [2, 3], "ok": True}
    assert hyperparameters(config) == {
        "seed": 1,
        "a.b": 0.5,
        "a.token": "(redacted)",
        "units": "2, 3",
        "ok": True,
    }


def test_an_evaluation_again_replaces_the_first(
    make_predictions: Callable[..., Predictions], tmp_path: Path
) -> None:
    predictions = make_predictions(800)
    context = ReportContext(
        run="r", split="test", tasks=[TaskContext(name="ctr")], num_replicates=10
    )
    report = build_report(predictions, context)
    for _ in range(2):
        folder = write_evaluation_summary(tmp_path, predictions, report, step=7, config={"seed": 3})
    assert folder == tmp_path / "evaluation-test"
    assert len(list(folder.iterdir())) == 1
    events = EventAccumulator(str(folder)).Reload()
    (scalar,) = events.Scalars("test/ctr.auc")
    assert scalar.step == 7
    assert scalar.value == pytest.approx(report["tasks"][0]["metrics"]["auc"]["value"])
    tags = events.Tags()
    assert set(tags["histograms"]) == {"ctr/logit of positives", "ctr/logit of negatives"}
    assert "ctr/precision_recall" in tags["tensors"]
    assert events.summary_metadata["_hparams_/session_start_info"] is not None


def test_vectors_for_the_projector(
    make_predictions: Callable[..., Predictions], tmp_path: Path
) -> None:
    predictions = make_predictions(800)
    context = ReportContext(
        run="r", split="test", tasks=[TaskContext(name="ctr")], num_replicates=2
    )
    report = build_report(predictions, context)
    ids = np.array([3, 7, 9])
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    for _ in range(2):
        folder = write_evaluation_summary(
            tmp_path, predictions, report, step=7, config={}, vectors={"item_id": (ids, rows)}
        )
    config = (folder / "projector_config.pbtxt").read_text()
    # evaluated twice, shown once
    assert config.count("embeddings {") == 1
    (vectors,) = folder.rglob("tensors.tsv")
    (labels,) = folder.rglob("metadata.tsv")
    np.testing.assert_array_equal(np.loadtxt(vectors), rows)
    assert labels.read_text().split() == ["3", "7", "9"]
    # an evaluation without vectors takes them away
    write_evaluation_summary(tmp_path, predictions, report, step=7, config={})
    assert not list(folder.rglob("*.tsv"))
