from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ranker.report.context import ReportContext, TaskContext
from ranker.report.predictions import Predictions
from ranker.report.slices import MAX_SLICES, NUM_BUCKETS, build_slices, cut_slices

Make = Callable[..., Predictions]

CONTEXT = ReportContext(run="r", split="s", tasks=[TaskContext(name="ctr")], num_replicates=10)


def tables(predictions: Predictions, task: str = "ctr") -> dict[str, list[dict[str, Any]]]:
    cuts = cut_slices(predictions, task, CONTEXT)
    found = build_slices(predictions, task, cuts, CONTEXT)
    return {table["column"]: table["slices"] for table in found}


def test_domains_are_sliced_only_if_there_are_several(make_predictions: Make) -> None:
    assert "domain" not in tables(make_predictions(num_domains=1))
    predictions = make_predictions(num_domains=3)
    slices = tables(predictions)["domain"]
    assert [entry["slice"] for entry in slices] == ["0", "1", "2"]
    task = predictions.tasks["ctr"]
    for domain, entry in enumerate(slices):
        rows = predictions.domain == domain
        assert entry["rows"] == rows.sum()
        assert entry["positives"] == task.label[rows].sum()
        assert entry["metrics"]["auc"]["value"] == pytest.approx(
            roc_auc_score(task.label[rows], task.logit[rows]), abs=1e-12
        )


@pytest.mark.parametrize("task", ["ctr", "cvr"])
def test_slices_of_a_column_part_the_rows(make_predictions: Make, task: str) -> None:
    predictions = make_predictions()
    for slices in tables(predictions, task).values():
        assert sum(entry["rows"] for entry in slices) == np.count_nonzero(
            ~np.isnan(predictions.tasks[task].label)
        )


def test_wide_columns_become_ranges_of_equal_mass(make_predictions: Make) -> None:
    slices = tables(make_predictions())["history_length"]
    assert len(slices) == NUM_BUCKETS
    assert slices[0]["slice"].startswith("0 to ")
    assert slices[-1]["slice"].endswith(" to 49")
    counts = [entry["rows"] for entry in slices]
    assert max(counts) < 1.5 * min(counts)


def test_a_heavy_value_is_not_split(make_predictions: Make) -> None:
    predictions = make_predictions()
    lengths = np.where(predictions.sample_id % 10 < 7, 0, predictions.sample_id)
    slices = tables(replace(predictions, slices={"length": lengths}))["length"]
    assert slices[0]["slice"] == "0"
    assert slices[0]["rows"] == np.count_nonzero(lengths == 0)


def test_many_domains_share_the_last_slice(make_predictions: Make) -> None:
    slices = tables(make_predictions(num_domains=40))["domain"]
    assert len(slices) == MAX_SLICES
    assert slices[-1]["slice"] == f"{40 - MAX_SLICES + 1} other values"
    assert sum(entry["rows"] for entry in slices) == 3000


def test_small_slices_are_marked(make_predictions: Make) -> None:
    predictions = make_predictions()
    rare = (predictions.sample_id < 40).astype(np.int64)
    slices = tables(replace(predictions, slices={"rare": rare}))["rare"]
    assert [entry["small"] for entry in slices] == [False, True]


def test_no_rows_have_no_slices(make_predictions: Make) -> None:
    predictions = make_predictions()
    assert tables(replace(predictions, weight=np.zeros(predictions.rows))) == {}
