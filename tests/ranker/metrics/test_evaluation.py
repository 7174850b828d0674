import numpy as np

from ranker.metrics.evaluation import EvaluationRows


def test_counts() -> None:
    ids = np.arange(3)
    rows = EvaluationRows(
        labels=np.array([True, False, True]),
        logits=np.zeros(3),
        probabilities=np.full(3, 0.5),
        weights=None,
        users=ids,
        groups=ids,
        requests=ids,
        truth=None,
    )
    assert (rows.count, rows.positives) == (3, 2)
