from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ranker.metrics.auc import auc
from ranker.metrics.delong import delong_interval, delong_test, delong_variance, placements
from ranker.metrics.runs import score_runs

Array = NDArray[Any]


def components(scores: Array, labels: Array) -> tuple[Array, Array]:
    """V10 [n+] and V01 [n-] from all pairs."""
    positive, negative = scores[labels], scores[~labels]
    psi = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return psi.mean(axis=1), psi.mean(axis=0)


def sample(seed: int = 0, size: int = 300, decimals: int = 1) -> tuple[Array, Array, Array]:
    generator = np.random.default_rng(seed)
    labels = generator.random(size) < 0.3
    shared = generator.normal(size=size) + labels
    first = np.round(shared + 0.5 * generator.normal(size=size), decimals)
    second = np.round(shared + 0.8 * generator.normal(size=size), decimals)
    return first, second, labels


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_variance_equals_all_pairs(decimals: int) -> None:
    scores, _, labels = sample(decimals=decimals)
    of_positive, of_negative = components(scores, labels)
    expected = of_positive.var(ddof=1) / labels.sum() + of_negative.var(ddof=1) / (~labels).sum()
    assert delong_variance(score_runs(scores, labels)) == pytest.approx(expected, rel=1e-12)
    placed = placements(scores, labels)
    assert placed[labels] == pytest.approx(of_positive, abs=1e-12)
    assert placed[~labels] == pytest.approx(of_negative, abs=1e-12)


def test_paired_test_equals_the_covariance_form() -> None:
    first, second, labels = sample()
    s10 = np.cov([components(s, labels)[0] for s in (first, second)]) / labels.sum()
    s01 = np.cov([components(s, labels)[1] for s in (first, second)]) / (~labels).sum()
    total = s10 + s01
    error = np.sqrt(total[0, 0] + total[1, 1] - 2 * total[0, 1])
    found = delong_test(first, second, labels)
    difference = float(auc(first, labels)) - float(auc(second, labels))
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.interval.low == pytest.approx(difference - 1.959963985 * error, abs=1e-9)
    assert found.interval.high == pytest.approx(difference + 1.959963985 * error, abs=1e-9)
    swapped = delong_test(second, first, labels)
    assert swapped.p_value == pytest.approx(found.p_value)
    assert found.p_value is not None
    assert 0 < found.p_value < 1


def test_p_values_are_uniform_when_models_are_equal() -> None:
    generator = np.random.default_rng(0)
    equal = []
    for _ in range(400):
        labels = generator.random(200) < 0.3
        shared = generator.normal(size=200) + labels
        first, second = (shared + generator.normal(size=200) for _ in range(2))
        equal.append(delong_test(first, second, labels).p_value)
    assert np.mean(np.array(equal) < 0.05) < 0.09
    assert np.mean(np.array(equal) < 0.5) == pytest.approx(0.5, abs=0.08)


def test_interval_covers_the_true_auc() -> None:
    generator = np.random.default_rng(1)
    # two unit normals one apart: AUC = Phi(1 / sqrt 2)
    true, covered = 0.7602499389, 0
    for _ in range(300):
        labels = generator.random(200) < 0.4
        runs = score_runs(generator.normal(size=200) + labels, labels)
        low, high = delong_interval(runs).bounds()
        covered += low < true < high
    assert covered / 300 == pytest.approx(0.95, abs=0.035)


def test_interval_stays_inside_zero_and_one() -> None:
    interval = delong_interval(score_runs([0.1, 0.2, 0.3, 0.4, 0.35], [0, 0, 0, 1, 1]))
    assert interval.reason == "the AUC is 1, where the estimated variance is 0"
    close = delong_interval(score_runs([0.1, 0.2, 0.3, 0.4, 0.25], [0, 0, 0, 1, 1]))
    low, high = close.bounds()
    assert 0 < low < high < 1


@pytest.mark.parametrize(
    ("labels", "weights", "reason"),
    [
        ([0, 0, 0, 0], None, "no positives in 4 rows"),
        ([0, 0, 0, 1], None, "fewer than two rows of a class"),
        ([0, 1, 0, 1], [1.0, 2.0, 1.0, 1.0], "defined for unweighted rows"),
    ],
)
def test_undefined_with_a_reason(
    labels: list[int], weights: list[float] | None, reason: str
) -> None:
    interval = delong_interval(score_runs([0.1, 0.2, 0.3, 0.4], labels, weights))
    assert interval.low is None
    assert reason in str(interval.reason)


def test_models_that_order_alike_have_no_test() -> None:
    scores, _, labels = sample()
    found = delong_test(scores, 3 * scores - 1, labels)
    assert (found.difference, found.p_value) == (0.0, None)
    assert found.interval.reason == "both models order the rows alike"


def test_refuses_one_positive_and_a_bad_level() -> None:
    with pytest.raises(ValueError, match="1 positives in 3 rows"):
        delong_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0, 0, 1])
    with pytest.raises(ValueError, match="level is 95"):
        delong_interval(score_runs([0.1, 0.2], [0, 1]), level=95)
