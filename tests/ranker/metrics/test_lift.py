import numpy as np
import pytest

from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.lift import Lift, gain, lift


def test_top_rows_without_ties() -> None:
    scores, labels = np.arange(10.0), np.array([0, 0, 0, 0, 1, 0, 0, 1, 0, 1])
    assert gain(scores, labels, fraction=0.3).value == pytest.approx(2 / 3)
    assert lift(scores, labels, fraction=0.3).value == pytest.approx(2 / 3 / 0.3)
    assert gain(scores, labels, fraction=1.0).value == pytest.approx(1.0)


def test_a_constant_score_lifts_nothing() -> None:
    labels = np.arange(100) < 20
    for order in (labels, labels[::-1]):
        assert lift(np.zeros(100), order, fraction=0.1).value == pytest.approx(1.0)


def test_weights_are_copies() -> None:
    scores, labels, counts = [0.1, 0.5, 0.5, 0.9], [1, 0, 1, 0], [3, 2, 1, 4]
    copies = gain(np.repeat(scores, counts), np.repeat(labels, counts), fraction=0.6)
    weighted = gain(scores, labels, counts, fraction=0.6).value
    assert weighted == pytest.approx(float(copies))


def test_lift_of_an_evaluation() -> None:
    scores, labels = np.arange(10.0), np.arange(10) > 6
    ids = np.arange(10)
    rows = EvaluationRows(
        labels=labels,
        logits=scores,
        probabilities=scores,
        weights=None,
        users=ids,
        groups=ids,
        requests=ids,
        truth=None,
    )
    assert Lift(fraction=0.2)(rows).value == pytest.approx(10 / 3)


def test_undefined_and_refused() -> None:
    assert lift([0.1, 0.2], [0, 0], fraction=0.5).reason == "no positives in 2 rows"
    for fraction in (0.0, 1.1):
        with pytest.raises(ValueError, match="give a share of the rows"):
            Lift(fraction=fraction)
