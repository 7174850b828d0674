from typing import Any

import numpy as np
import pytest

from ranker.constraint_values import metrics_of_batches
from ranker.metrics.auc import auc
from ranker.metrics.gauc import gauc


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
    (first, second) = metrics_of_batches(gathered, ["auc", "gauc"])
    expected = auc(rows["logit"], rows["label"]).value
    by_group = gauc(rows["logit"], rows["label"], rows["group"]).impressions.value
    assert first == [pytest.approx(expected), pytest.approx(by_group)]
    assert np.isnan(second).all()
