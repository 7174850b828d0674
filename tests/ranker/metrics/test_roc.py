from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import auc as trapezoid
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import precision_recall_curve as sklearn_precision_recall
from sklearn.metrics import roc_curve as sklearn_roc

from ranker.metrics.auc import auc
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.roc import (
    PartialAuc,
    average_precision,
    mcclish_auc,
    partial_auc,
    precision_recall_curve,
    roc_curve,
)
from ranker.metrics.runs import score_runs

Array = NDArray[Any]


def sample(size: int = 3000, decimals: int = 2) -> tuple[Array, Array, Array]:
    generator = np.random.default_rng(0)
    labels = generator.random(size) < 0.1
    scores = np.round(generator.normal(size=size) + labels, decimals)
    return scores, labels, generator.gamma(1.0, size=size)


@pytest.mark.parametrize("weighted", [False, True])
def test_curve_equals_scikit_learn(weighted: bool) -> None:
    scores, labels, some = sample()
    weights = some if weighted else None
    curve = roc_curve(score_runs(scores, labels, weights), max_points=10_000)
    alarms, hits, thresholds = sklearn_roc(
        labels, scores, sample_weight=weights, drop_intermediate=False
    )
    assert curve.false_positive_rate == pytest.approx(alarms, abs=1e-12)
    assert curve.true_positive_rate == pytest.approx(hits, abs=1e-12)
    assert curve.threshold.tolist() == thresholds.tolist()


def test_thinned_points_are_points_of_the_curve() -> None:
    scores, labels, _ = sample(decimals=9)
    runs = score_runs(scores, labels)
    whole, thin = roc_curve(runs, max_points=10_000), roc_curve(runs, max_points=100)
    points = set(zip(whole.false_positive_rate, whole.true_positive_rate, strict=True))
    kept = list(zip(thin.false_positive_rate, thin.true_positive_rate, strict=True))
    assert set(kept) <= points
    assert kept[0] == (0.0, 0.0)
    assert kept[-1] == (1.0, 1.0)
    assert 50 < len(kept) <= 100
    area = trapezoid(thin.false_positive_rate, thin.true_positive_rate)
    assert area == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)


def test_curve_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="no positives in 2 rows"):
        roc_curve(score_runs([0.1, 0.2], [0, 0]))
    with pytest.raises(ValueError, match="max_points is 1"):
        roc_curve(score_runs([0.1, 0.2], [0, 1]), max_points=1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("decimals", [0, 2, 9])
def test_average_precision_equals_scikit_learn(weighted: bool, decimals: int) -> None:
    scores, labels, some = sample(decimals=decimals)
    weights = some if weighted else None
    assert average_precision(scores, labels, weights).value == pytest.approx(
        average_precision_score(labels, scores, sample_weight=weights), abs=1e-12
    )


def test_partial_auc_with_everything_is_auc() -> None:
    scores, labels, weights = sample()
    for weight in (None, weights):
        assert partial_auc(scores, labels, weight, max_fpr=1.0).value == pytest.approx(
            auc(scores, labels, weight).value, abs=1e-12
        )


@pytest.mark.parametrize(("max_fpr", "positive_fraction"), [(0.1, 1.0), (0.25, 0.5), (1e-9, 1e-9)])
def test_partial_auc_compares_the_hardest_rows(max_fpr: float, positive_fraction: float) -> None:
    scores, labels, _ = sample(decimals=9)
    negative, positive = np.sort(scores[~labels])[::-1], np.sort(scores[labels])
    negative = negative[: max(int(max_fpr * len(negative)), 1)]
    positive = positive[: max(int(positive_fraction * len(positive)), 1)]
    expected = np.mean(positive[:, None] > negative[None, :])
    found = partial_auc(scores, labels, max_fpr=max_fpr, positive_fraction=positive_fraction)
    assert found.value == pytest.approx(expected, abs=1e-12)


def test_partial_auc_without_ties_matches_the_raw_area_behind_mcclish() -> None:
    scores, labels, _ = sample(size=2000, decimals=9)
    labels[:] = False
    labels[:200] = True
    beta = 0.25
    standardised = roc_auc_score(labels, scores, max_fpr=beta)
    least, most = beta**2 / 2, beta
    raw = least + (2 * standardised - 1) * (most - least)
    # 450 of 1,800 negatives: the cut falls between two rows
    assert partial_auc(scores, labels, max_fpr=beta).value == pytest.approx(raw / beta, abs=1e-12)


def test_partial_auc_averages_over_ties_at_the_cut() -> None:
    positive, negative = [0.5, 0.2], [0.5, 0.5, 0.5, 0.1]
    values = []
    # break the ties in every order, then keep the top 2 of 4 negatives
    for order in permutations(range(4)):
        kept = [negative[i] for i in sorted(order, key=lambda i: -negative[i])][:2]
        values.append(np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in kept]))
    found = partial_auc([*positive, *negative], [1, 1, 0, 0, 0, 0], max_fpr=0.5)
    assert found.value == pytest.approx(np.mean(values))


def test_fraction_of_ten_rows_is_not_short_by_rounding() -> None:
    # 0.3 * 10 and 0.29 * 100 fall just below 3 and 29 in floating point
    scores, labels = np.arange(101.0), np.arange(101) == 85
    expected = np.mean(scores[labels][0] > np.arange(101.0)[~labels][-29:])
    assert partial_auc(scores, labels, max_fpr=0.29).value == pytest.approx(expected)


def test_partial_auc_of_an_evaluation() -> None:
    scores, labels, _ = sample()
    rows = EvaluationRows(
        labels=labels,
        logits=scores,
        probabilities=scores,
        weights=None,
        users=np.arange(len(labels)),
        groups=np.arange(len(labels)),
        requests=np.arange(len(labels)),
        truth=None,
    )
    metric = PartialAuc(max_fpr=0.2, positive_fraction=0.5)
    assert metric(rows) == partial_auc(scores, labels, max_fpr=0.2, positive_fraction=0.5)
    with pytest.raises(ValueError, match="positive_fraction is 2"):
        PartialAuc(max_fpr=0.2, positive_fraction=2)


def test_undefined_and_refused() -> None:
    assert average_precision([0.1, 0.2], [0, 0]).reason == "no positives in 2 rows"
    assert partial_auc([0.1, 0.2], [1, 1], max_fpr=0.5).reason == "no negatives in 2 rows"
    for fraction in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match="give a fraction in"):
            partial_auc([0.1, 0.2], [0, 1], max_fpr=fraction)


@pytest.mark.parametrize("max_fpr", [0.001, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("digits", [1, 6])
def test_mcclish_equals_scikit_learn(max_fpr: float, weighted: bool, digits: int) -> None:
    generator = np.random.default_rng(3)
    labels = generator.random(500) < 0.3
    scores = np.round(labels + generator.normal(size=500), digits)
    weights = generator.gamma(1.0, size=500) if weighted else None
    expected = roc_auc_score(labels, scores, sample_weight=weights, max_fpr=max_fpr)
    found = mcclish_auc(scores, labels, weights, max_fpr=max_fpr)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_mcclish_needs_both_classes() -> None:
    assert mcclish_auc([0.1, 0.2], [1, 1], max_fpr=0.1).reason == "no negatives in 2 rows"
    with pytest.raises(ValueError, match="max_fpr is 0"):
        mcclish_auc([0.1, 0.2], [0, 1], max_fpr=0)


def test_precision_recall_equals_scikit_learn() -> None:
    generator = np.random.default_rng(4)
    labels = generator.random(300) < 0.2
    scores = np.round(labels + generator.normal(size=300), 1)
    curve = precision_recall_curve(score_runs(scores, labels))
    precision, recall, _ = sklearn_precision_recall(labels, scores)
    # theirs ends in an invented point at recall 0
    np.testing.assert_allclose(curve.precision[::-1], precision[:-1])
    np.testing.assert_allclose(curve.recall[::-1], recall[:-1])


def test_a_thinned_precision_recall_curve_keeps_its_ends() -> None:
    generator = np.random.default_rng(5)
    labels = generator.random(5000) < 0.2
    runs = score_runs(labels + generator.normal(size=5000), labels)
    whole, thin = precision_recall_curve(runs, max_points=10**6), precision_recall_curve(runs)
    assert len(thin.recall) <= 401
    assert thin.recall[-1] == 1
    assert set(thin.recall) <= set(whole.recall)
