import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from ranker.metrics.top_k import Ndcg
from ranker.report.baseline import Baseline
from ranker.report.context import ReportContext, TaskContext
from ranker.report.predictions import Predictions, read_predictions, write_predictions
from ranker.report.report import build_report, write_report

Make = Callable[..., Predictions]
Json = dict[str, Any]

CONTEXT = ReportContext(
    run="demo",
    split="test",
    tasks=[
        TaskContext(name="ctr", description="click"),
        TaskContext(name="cvr", condition="click = 1"),
    ],
    config="name: demo\n",
    environment={"torch": "2.13.0"},
    records=[{"kind": "train", "step": 10, "loss": 0.5}],
    metrics={"ndcg_at_10": Ndcg(k=10)},
    num_replicates=50,
)


def keys(value: Any) -> Any:
    """The shape of a JSON value: keys of objects, the shape of the first entry of lists."""
    if isinstance(value, dict):
        return {key: keys(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [keys(value[0])] if value else []
    return type(value).__name__


INTERVAL = {
    "low": "float",
    "high": "float",
    "level": "float",
    "method": "str",
    "reason": "NoneType",
}
NO_INTERVAL = INTERVAL | {"low": "NoneType", "high": "NoneType", "reason": "str"}
METRIC = {
    "value": "float",
    "reason": "NoneType",
    "rows": "int",
    "positives": "int",
    "interval": INTERVAL,
}
BARE = METRIC | {"interval": "NoneType"}
GAUC = METRIC | {
    "uniform": METRIC,
    "positive_weighted": METRIC,
    "num_groups": "int",
    "skipped_groups_fraction": "float",
    "skipped_rows_fraction": "float",
}
AUC = METRIC | {"delong": INTERVAL}
GAP = {
    "difference": "float",
    "interval": INTERVAL,
    "p_value": "float",
    "p_adjusted": "float",
}
TASK = {
    "name": "str",
    "description": "str",
    "space": "str",
    "rows": "int",
    "positives": "int",
    "negative_sampling_rate": "NoneType",
    "positive_rate": "float",
    "weighted": "bool",
    "remarks": [],
    "metrics": {
        "auc": AUC,
        "gauc": GAUC,
        "normalized_entropy": METRIC,
        "pcoc": METRIC,
        "logloss": METRIC,
        "relative_information_gain": METRIC,
        "expected_calibration_error": METRIC,
        "brier": METRIC,
        "average_precision": METRIC,
    },
    "bayes": {"auc": BARE | {"gap": GAP}, "gauc": BARE | {"gap": GAP}},
    "more": {"ndcg_at_10": METRIC | {"interval": NO_INTERVAL}},
    "curves": {
        "roc": {"false_positive_rate": ["float"], "true_positive_rate": ["float"]},
        "precision_recall": {"recall": ["float"], "precision": ["float"]},
        "calibration": {
            "predicted": ["float"],
            "observed": ["float"],
            "weight": ["float"],
            "rows": ["int"],
            "low": ["float"],
            "high": ["float"],
        },
        "histogram": {"edges": ["float"], "positive": ["float"], "negative": ["float"]},
    },
    "entire_space": "NoneType",
    "worst": {
        "candidates": "int",
        "slices": [
            {
                "slice": "str",
                "rows": "int",
                "positives": "int",
                "below": "bool",
                "metrics": {
                    "auc": AUC,
                    "gauc": GAUC,
                    "normalized_entropy": METRIC,
                    "pcoc": METRIC,
                },
            }
        ],
    },
    "slices": [
        {
            "column": "str",
            "slices": [
                {
                    "slice": "str",
                    "rows": "int",
                    "positives": "int",
                    "small": "bool",
                    "metrics": {
                        "auc": AUC,
                        "gauc": GAUC,
                        "normalized_entropy": METRIC,
                        "pcoc": METRIC,
                    },
                }
            ],
        }
    ],
    "summary": "str",
}


DATA = (
    "rows",
    "time (UTC)",
    "users",
    "rows of a user",
    "requests",
    "rows of a request",
    "label of ctr",
    "label of cvr",
    "history length",
)
COMPARED = METRIC | {"run": "str", "difference": "NoneType", "verdict": "NoneType"}


def test_keys_of_a_report_with_everything(make_predictions: Make) -> None:
    predictions = make_predictions()
    record = {"kind": "train", "step": 7, "multiplier/ctr": 0.5}
    record |= {"constraint/ctr/loss": 0.4, "constraint/ctr/reference": 0.5}
    search = {"encoder": "twin", "k": 5, "count": 9, "hit_rate": 0.9, "interval": [0.8, 1.0]}
    baseline = Baseline(run="old", predictions=predictions, changes={"lr": ("1", "2")})
    report = build_report(
        predictions,
        replace(
            CONTEXT,
            records=[record],
            search=[search | {"by_length": [{"bucket": "1 to 2", "hit_rate": 0.9, "count": 9}]}],
            baseline=baseline,
            data={"behaviours": "12"},
        ),
    )
    assert report["data"]["behaviours"] == "12"
    assert keys(report["constraints"]) == [
        {
            "name": "str",
            "metric": "str",
            "value": "float",
            "reference": "float",
            "multiplier": "float",
            "step": "int",
        }
    ]
    assert report["training"].keys() == {"multipliers", "constraint ctr"}
    found = keys(report["baseline"])
    assert found.pop("tasks")[0]["metrics"] == [
        {"name": "str", "runs": [COMPARED | {"relative_improvement": "NoneType"}]}
    ]
    assert found == {"run": "str", "changes": [["str"]], "summary": "str"}
    assert "Against old: ctr: AUC +0.0000" in report["summary"]


def test_keys_of_the_json_are_a_promise(make_predictions: Make) -> None:
    report = build_report(make_predictions(), CONTEXT)
    assert report["schema_version"] == 1
    assert keys(report) == {
        "schema_version": "int",
        "run": "str",
        "split": "str",
        "created": "str",
        "rows": "int",
        "users": "int",
        "groups": "int",
        "intervals": {"level": "float", "replicates": "int", "seed": "int"},
        "tasks": [TASK],
        "baseline": "NoneType",
        "training": {"loss": {"train loss": [["float"]]}},
        "constraints": [],
        "held_out": [],
        "search": [],
        "data": dict.fromkeys(DATA, "str"),
        "config": "str",
        "environment": {"torch": "str"},
        "summary": "str",
    }


def test_numbers_equal_scikit_learn(make_predictions: Make) -> None:
    predictions = make_predictions()
    report = build_report(predictions, CONTEXT)
    task = predictions.tasks["ctr"]
    label, p = task.label == 1, task.probability.astype(np.float64)
    found = {name: metric["value"] for name, metric in report["tasks"][0]["metrics"].items()}
    assert found["auc"] == pytest.approx(roc_auc_score(label, task.logit), abs=1e-12)
    assert found["logloss"] == pytest.approx(log_loss(label, p), abs=1e-6)
    assert found["brier"] == pytest.approx(brier_score_loss(label, p), abs=1e-9)
    assert found["average_precision"] == pytest.approx(
        average_precision_score(label, task.logit), abs=1e-12
    )
    assert found["pcoc"] == pytest.approx(p.sum() / label.sum())
    best = report["tasks"][0]["bayes"]["auc"]
    assert best["value"] == pytest.approx(roc_auc_score(label, task.truth), abs=1e-12)
    assert best["gap"]["difference"] == pytest.approx(best["value"] - found["auc"])
    low, high = best["gap"]["interval"]["low"], best["gap"]["interval"]["high"]
    assert 0 < low < best["gap"]["difference"] < high


def test_each_task_is_evaluated_on_its_own_space(make_predictions: Make) -> None:
    predictions = make_predictions()
    ctr, cvr = build_report(predictions, CONTEXT)["tasks"]
    clicked = predictions.tasks["ctr"].label == 1
    task = predictions.tasks["cvr"]
    assert ctr["space"] == "all 3,000 rows"
    assert cvr["space"] == f"rows with click = 1: {clicked.sum():,} of 3,000"
    assert cvr["rows"] == clicked.sum()
    assert cvr["metrics"]["auc"]["value"] == pytest.approx(
        roc_auc_score(task.label[clicked], task.logit[clicked]), abs=1e-12
    )
    assert cvr["bayes"] is None
    plain = replace(CONTEXT, tasks=[TaskContext(name="cvr")])
    space = build_report(predictions, plain)["tasks"][0]["space"]
    assert space == f"rows where the label is defined: {clicked.sum():,} of 3,000"


def test_padding_rows_are_not_there(make_predictions: Make) -> None:
    predictions = make_predictions()
    rows = np.arange(predictions.rows)
    padding = rows % 5 == 0
    padded = replace(predictions, weight=np.where(padding, 0.0, 1.0))
    kept = ~padding
    names = ("sample_id", "user", "request", "group", "time", "domain", "weight")
    without = replace(
        predictions,
        **{name: getattr(predictions, name)[kept] for name in names},
        tasks={
            name: replace(
                task,
                label=task.label[kept],
                logit=task.logit[kept],
                probability=task.probability[kept],
                truth=None if task.truth is None else task.truth[kept],
            )
            for name, task in predictions.tasks.items()
        },
        slices={name: values[kept] for name, values in predictions.slices.items()},
    )
    assert build_report(padded, CONTEXT) == build_report(without, CONTEXT)


def test_weights_count(make_predictions: Make) -> None:
    predictions = make_predictions(weighted=True)
    task = predictions.tasks["ctr"]
    section = build_report(predictions, CONTEXT)["tasks"][0]
    assert section["weighted"] is True
    assert section["metrics"]["auc"]["value"] == pytest.approx(
        roc_auc_score(task.label, task.logit, sample_weight=predictions.weight), abs=1e-12
    )
    assert section["metrics"]["auc"]["delong"]["reason"].startswith("DeLong")
    assert section["curves"]["calibration"]["low"] is None


def test_undefined_is_null_with_a_reason(make_predictions: Make) -> None:
    predictions = make_predictions(truth=True)
    task = predictions.tasks["ctr"]
    negative = replace(predictions, tasks={"ctr": replace(task, label=np.zeros_like(task.label))})
    section = build_report(negative, replace(CONTEXT, tasks=CONTEXT.tasks[:1]))["tasks"][0]
    for name in ("auc", "normalized_entropy", "pcoc", "average_precision"):
        assert section["metrics"][name]["value"] is None
        assert section["metrics"][name]["reason"] == "no positives in 3,000 rows"
        assert section["metrics"][name]["interval"] is None
    assert section["metrics"]["gauc"]["reason"] == "none of 150 groups has both classes"
    assert section["metrics"]["logloss"]["value"] is not None
    assert section["curves"]["roc"] is None
    assert section["bayes"]["auc"]["gap"] is None
    assert section["summary"] == "No AUC: no positives in 3,000 rows."


def test_a_task_without_any_label_is_reported_as_such(make_predictions: Make) -> None:
    predictions = make_predictions()
    task = predictions.tasks["ctr"]
    empty = replace(
        predictions, tasks={"ctr": replace(task, label=np.full_like(task.label, np.nan))}
    )
    section = build_report(empty, replace(CONTEXT, tasks=CONTEXT.tasks[:1]))["tasks"][0]
    assert section["rows"] == 0
    assert section["positive_rate"] is None
    assert all(metric["reason"] for metric in section["metrics"].values())
    assert section["remarks"] == ["No row has a label for this task, so nothing could be measured."]


def test_groups_across_users_have_no_user_interval(make_predictions: Make) -> None:
    predictions = make_predictions()
    mixed = replace(predictions, group=predictions.domain)
    gauc = build_report(mixed, CONTEXT)["tasks"][0]["metrics"]["gauc"]
    assert gauc["value"] is not None
    assert "several users" in gauc["interval"]["reason"]
    nested = replace(predictions, group=predictions.user * 2 + predictions.sample_id % 2)
    gauc = build_report(nested, CONTEXT)["tasks"][0]["metrics"]["gauc"]
    assert gauc["interval"]["low"] < gauc["value"] < gauc["interval"]["high"]


def test_a_pure_function(make_predictions: Make) -> None:
    predictions = make_predictions()
    assert build_report(predictions, CONTEXT) == build_report(predictions, CONTEXT)


def test_written_files_hold_the_report(make_predictions: Make, tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, make_predictions())
    report = build_report(read_predictions(path), CONTEXT)
    json_path, html_path = write_report(tmp_path / "report", report)
    assert json.loads(json_path.read_text()) == report
    assert html_path.read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]


def test_refuses_an_unknown_task(make_predictions: Make) -> None:
    context = replace(CONTEXT, tasks=[TaskContext(name="ctr"), TaskContext(name="like")])
    with pytest.raises(ValueError, match="names like; the predictions have ctr, cvr"):
        build_report(make_predictions(100), context)
    with pytest.raises(ValueError, match="names no task"):
        build_report(make_predictions(100), replace(CONTEXT, tasks=[]))
