from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from ranker.report.predictions import (
    Predictions,
    TaskPredictions,
    read_predictions,
    write_predictions,
)


def sigmoid(logit: NDArray[Any]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-logit.astype(np.float64)))).astype(np.float32)


def make(size: int = 50) -> Predictions:
    generator = np.random.default_rng(0)
    click = (generator.random(size) < 0.3).astype(np.float32)
    logits = generator.normal(size=(2, size)).astype(np.float32)
    conversion = np.where(click == 1, (generator.random(size) < 0.5), np.nan).astype(np.float32)
    ids = np.arange(size)
    return Predictions(
        sample_id=ids,
        user=ids // 5,
        request=ids // 2,
        group=ids // 5,
        time=ids * 60,
        domain=ids % 2,
        weight=np.ones(size),
        tasks={
            "ctr": TaskPredictions(
                label=click,
                logit=logits[0],
                probability=sigmoid(logits[0]),
                truth=generator.random(size),
            ),
            "cvr": TaskPredictions(
                label=conversion, logit=logits[1], probability=sigmoid(logits[1])
            ),
        },
        slices={"history": ids % 7},
    )


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    written = make()
    write_predictions(path, written)
    found = read_predictions(path)
    for name in ("sample_id", "user", "request", "group", "time", "domain", "weight"):
        assert np.array_equal(getattr(found, name), getattr(written, name))
        assert getattr(found, name).dtype == getattr(written, name).dtype
    assert list(found.tasks) == ["ctr", "cvr"]
    for name, task in written.tasks.items():
        assert np.array_equal(found.tasks[name].label, task.label, equal_nan=True)
        assert np.array_equal(found.tasks[name].logit, task.logit)
        assert np.array_equal(found.tasks[name].probability, task.probability)
        assert found.tasks[name].logit.dtype == np.float32
    truths = [data.tasks["ctr"].truth for data in (found, written)]
    assert truths[0] is not None
    assert truths[1] is not None
    assert np.array_equal(truths[0], truths[1])
    assert found.tasks["cvr"].truth is None
    assert np.array_equal(found.slices["history"], written.slices["history"])
    assert list(tmp_path.iterdir()) == [path]


def test_undefined_labels_are_nulls_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    predictions = make()
    write_predictions(path, predictions)
    column = pq.read_table(path).column("label_cvr")
    assert column.null_count == int(np.isnan(predictions.tasks["cvr"].label).sum()) > 0


def with_task(**changes: Any) -> Predictions:
    predictions = make()
    task = replace(predictions.tasks["ctr"], **changes)
    return replace(predictions, tasks={"ctr": task})


def column_with(values: NDArray[Any], row: int, value: float) -> NDArray[Any]:
    values = values.copy()
    values[row] = value
    return values


BASE = make()
CTR = BASE.tasks["ctr"]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (
            with_task(label=column_with(CTR.label, 3, 2.0)),
            r"label_ctr\[3\] is 2.0; .* 0, 1 or null",
        ),
        (with_task(logit=column_with(CTR.logit, 4, np.nan)), r"logit_ctr\[4\] is nan; .* finite"),
        (with_task(probability=CTR.probability + 0.1), r"p_ctr\[0\] is .* sigmoid\(logit_ctr\)"),
        (with_task(probability=CTR.logit * np.nan), r"p_ctr\[0\] is nan"),
        (with_task(truth=column_with(BASE.weight, 2, 1.5)), r"truth_ctr\[2\] is 1.5"),
        (with_task(label=CTR.label[:7]), r"label_ctr has shape \(7,\); sample_id has 50 rows"),
        (replace(BASE, weight=column_with(BASE.weight, 9, -1.0)), r"weight\[9\] is -1.0"),
        (replace(BASE, user=BASE.user[:3]), r"column user has shape \(3,\)"),
    ],
)
def test_refuses_bad_values_and_writes_nothing(
    tmp_path: Path, predictions: Predictions, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_predictions(tmp_path / "predictions.parquet", predictions)
    assert list(tmp_path.iterdir()) == []


def write_changed(path: Path, change: str) -> None:
    write_predictions(path, make())
    table = pq.read_table(path)
    names = table.column_names
    if change == "drop":
        table = table.drop_columns(["p_cvr"])
    elif change == "rename":
        table = table.rename_columns(
            ["logits" if name == "slice_history" else name for name in names]
        )
    elif change == "no task":
        table = table.select(["sample_id", "user", "request", "group", "time", "domain", "weight"])
    elif change == "null":
        position = names.index("user")
        table = table.set_column(position, "user", pa.array([None, *range(49)], type=pa.int64()))
    elif change == "text":
        table = table.set_column(names.index("time"), "time", pa.array(["x"] * 50))
    elif change == "null logit":
        position = names.index("logit_ctr")
        table = table.set_column(position, "logit_ctr", pa.array([None, *([0.5] * 49)]))
    elif change == "twice":
        table = table.append_column("user", table.column("user"))
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("drop", "missing column p_cvr; the file has sample_id"),
        ("rename", "unknown column logits; name a column to slice by slice_<name>"),
        ("no task", "missing column label_<task>"),
        ("null", "column user is int64 with 1 nulls; it must be int64 without nulls"),
        ("text", "column time is string"),
        ("null logit", "column logit_ctr is double with 1 nulls"),
        ("twice", "column user appears twice"),
    ],
)
def test_refuses_another_layout(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "predictions.parquet"
    write_changed(path, change)
    with pytest.raises(ValueError, match=message):
        read_predictions(path)


def test_names_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, make(2000))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"PAR1junk", flip(whole, 200)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"predictions\.parquet cannot be read"):
            read_predictions(path)
    with pytest.raises(ValueError, match=r"absent\.parquet cannot be read"):
        read_predictions(tmp_path / "absent.parquet")


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]
