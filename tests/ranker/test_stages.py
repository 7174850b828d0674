from typing import Any

import numpy as np
import pytest

from ranker.metrics.auc import auc
from ranker.metrics.gauc import gauc
from ranker.stages import _batch_metrics, all_met, describe

RECORD = {
    "held_out/ctr/excess": 0.002,
    "held_out/ctr/excess_low": -0.001,
    "held_out/ctr/excess_high": 0.005,
    "held_out/ctr/slack": 0.001,
    "held_out/ctr/met": 1.0,
}


def test_constraints_are_told_in_words() -> None:
    assert describe(RECORD) == "; ctr: +0.20% of its reference, constraint met"
    assert describe({**RECORD, "held_out/ctr/met": 0.0}).endswith("constraint not met")
    assert describe({}) == ""


def test_all_must_be_met() -> None:
    assert all_met({})
    assert all_met(RECORD)
    assert not all_met({**RECORD, "held_out/like/met": 0.0})


def test_a_metric_of_a_batch_is_that_of_its_rows_on_all_ranks() -> None:
    generator = np.random.default_rng(0)
    rows: dict[str, Any] = {
        "logit": generator.normal(size=40).astype(np.float32),
        "label": (generator.random(40) < 0.5).astype(np.float32),
        "weight": np.ones(40),
        "group": generator.integers(0, 5, 40),
    }
    shares = [
        {key: value[half] for key, value in rows.items()} for half in (slice(25), slice(25, 40))
    ]
    empty = {key: value[:0] for key, value in rows.items()}
    # by rank, batch and metric
    gathered = [[[share, share], [empty, empty]] for share in shares]
    (first, second) = _batch_metrics(gathered, ["auc", "gauc"])
    expected = auc(rows["logit"], rows["label"]).value
    by_group = gauc(rows["logit"], rows["label"], rows["group"]).impressions.value
    assert first == [pytest.approx(expected), pytest.approx(by_group)]
    assert np.isnan(second).all()
