import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from ranker.metrics.top_k import Ndcg
from ranker.report.any_predictions import Columns, TaskColumns
from ranker.report.from_file import ReportOptions, report_file


def foreign_file(path: Path) -> Path:
    generator = np.random.default_rng(0)
    score = generator.random(900)
    table = {
        "uid": [f"u{index % 60}" for index in range(900)],
        "clicked": generator.random(900) < score,
        "score": score,
        "land": [("se", "no")[index % 2] for index in range(900)],
    }
    pq.write_table(pa.table(table), path)
    return path


COLUMNS = Columns(
    user="uid", slices=["land"], tasks={"ctr": TaskColumns(label="clicked", probability="score")}
)


def test_a_foreign_file_becomes_a_report(tmp_path: Path) -> None:
    path = foreign_file(tmp_path / "theirs.parquet")
    options = ReportOptions(
        predictions=str(path),
        out=str(tmp_path / "report"),
        slices=["user_activity", "count.land"],
        num_replicates=20,
    )
    report_file(options, COLUMNS, {"ndcg": Ndcg(k=3)})
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    (task,) = report["tasks"]
    table = pq.read_table(path)
    expected = roc_auc_score(table["clicked"].to_numpy(), table["score"].to_numpy())
    assert task["metrics"]["auc"]["value"] == pytest.approx(expected, abs=1e-6)
    assert report["users"] == 60
    assert report["run"] == "theirs.parquet"
    assert "ndcg" in task["more"]
    tables = {cut["column"]: [row["slice"] for row in cut["slices"]] for cut in task["slices"]}
    assert tables["land"] == ["no", "se"]
    assert tables["user_activity"] == ["15"]
    assert tables["count.land"] == ["450"]
    assert (tmp_path / "report" / "report.md").is_file()


def test_categories_are_not_ranged(tmp_path: Path) -> None:
    path = foreign_file(tmp_path / "theirs.parquet")
    table = pq.read_table(path).append_column("shop", pa.array([i % 40 for i in range(900)]))
    pq.write_table(table, path)
    labels = []
    for categories in ([], ["shop"]):
        columns = replace(COLUMNS, slices=["shop"])
        options = ReportOptions(predictions=str(path), categories=categories, num_replicates=5)
        report_file(options, columns, {})
        task = json.loads((tmp_path / "report.json").read_text())["tasks"][0]
        labels.append([row["slice"] for row in task["slices"][0]["slices"]])
    assert " to " in labels[0][0]
    assert labels[1][-1].endswith("other values")


def test_an_unknown_slice_is_named(tmp_path: Path) -> None:
    path = foreign_file(tmp_path / "theirs.parquet")
    options = ReportOptions(predictions=str(path), slices=["count.city"])
    with pytest.raises(ValueError, match=r"'count\.city'; give user_activity, hour or count"):
        report_file(options, COLUMNS, {})
    with pytest.raises(ValueError, match="time_unit is 'h'"):
        ReportOptions(predictions=str(path), time_unit="h")
