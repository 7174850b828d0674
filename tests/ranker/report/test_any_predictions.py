from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.report.any_predictions import Columns, TaskColumns, read_any_predictions
from ranker.report.predictions import Predictions, write_predictions

TABLE: dict[str, Any] = {
    "uid": ["b", "a", "b", "c"],
    "y": [1, 0, None, 1],
    "score": [0.9, 0.0, 1.0, 0.25],
    "country": ["se", "no", "se", "dk"],
    "session": [7, 7, 8, 9],
}


def write(path: Path, **changes: Any) -> Path:
    pq.write_table(pa.table({**TABLE, **changes}), path)
    return path


def columns(**changes: Any) -> Columns:
    given = {"label": "y", "probability": "score"}
    return Columns(
        user="uid",
        slices=["country"],
        request="session",
        tasks={"ctr": TaskColumns(**{**given, **changes})},
    )


def test_named_columns_become_predictions(tmp_path: Path) -> None:
    named = read_any_predictions(write(tmp_path / "x.parquet"), columns())
    found = named.predictions
    assert found.user.tolist() == [1, 0, 1, 2]
    assert found.group.tolist() == found.user.tolist()
    assert found.request.tolist() == [7, 7, 8, 9]
    assert found.sample_id.tolist() == [0, 1, 2, 3]
    task = found.tasks["ctr"]
    np.testing.assert_array_equal(task.label, [1, 0, np.nan, 1])
    np.testing.assert_allclose(task.logit[[0, 3]], np.log([9, 1 / 3]), rtol=1e-6)
    # certainty has a finite logit
    assert np.isfinite(task.logit).all()
    assert found.slices["country"].tolist() == [2, 1, 2, 0]
    assert named.value_names == {"country": {0: "dk", 1: "no", 2: "se"}}


def test_logits_alone_give_probabilities(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", score=[0.0, -1000.0, 1000.0, 1.0])
    given = columns(probability=None, logit="score")
    task = read_any_predictions(path, given).predictions.tasks["ctr"]
    np.testing.assert_allclose(task.probability, [0.5, 0, 1, 1 / (1 + np.exp(-1))], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": [0.1, 2.0, 0.3, 0.4]}, r"score\[1\] is 2\.0; it must be in \[0, 1\]"),
        ({"score": [0.1, None, 0.3, 0.4]}, "score has 1 nulls"),
        ({"y": [0, 1, 2, 1]}, r"y\[2\] is 2\.0; it must be 0, 1 or null"),
        ({"uid": [0.5, 1.0, 2.0, 3.0]}, "uid is double; ids and slices must be"),
        ({"score": ["a", "b", "c", "d"]}, "score is string; it must hold numbers"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_any_predictions(write(tmp_path / "x.parquet", **changes), columns())


def test_absent_columns_and_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="no column 'nope'; it has uid, y, score"):
        read_any_predictions(path, columns(label="nope"))
    with pytest.raises(ValueError, match=r"columns\.user is missing"):
        read_any_predictions(path, Columns(tasks=columns().tasks))
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_any_predictions(tmp_path / "none.parquet", columns())
    with pytest.raises(ValueError, match="column of the probability or of the logit"):
        TaskColumns(label="y")


def test_without_tasks_it_is_our_own_format(
    tmp_path: Path, make_predictions: Callable[..., Predictions]
) -> None:
    predictions = make_predictions(50)
    write_predictions(tmp_path / "p.parquet", predictions)
    found = read_any_predictions(tmp_path / "p.parquet", Columns()).predictions
    np.testing.assert_array_equal(found.user, predictions.user)
