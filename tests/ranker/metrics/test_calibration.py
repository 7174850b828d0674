from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve as sklearn_curve

from ranker.metrics.calibration import calibration_curve, expected_calibration_error, pcoc

Array = NDArray[Any]


def sample(size: int = 5000) -> tuple[Array, Array, Array]:
    generator = np.random.default_rng(0)
    probabilities = generator.beta(1, 12, size=size)
    return probabilities, generator.random(size) < probabilities, generator.gamma(1.0, size=size)


def test_pcoc_is_predicted_over_observed() -> None:
    probabilities, labels, weights = sample()
    assert pcoc(probabilities, labels).value == pytest.approx(probabilities.sum() / labels.sum())
    assert pcoc(probabilities, labels, weights).value == pytest.approx(
        (weights * probabilities).sum() / (weights * labels).sum()
    )
    assert pcoc([0.4, 0.8], [0, 1]).value == pytest.approx(1.2)


def test_pcoc_without_positives_is_undefined() -> None:
    assert pcoc([0.1, 0.2], [0, 0]).reason == "no positives in 2 rows"
    assert pcoc([], []).reason == "no rows"


def test_curve_equals_quantile_bins_without_ties() -> None:
    probabilities, labels, _ = sample()
    observed, predicted = sklearn_curve(labels, probabilities, n_bins=10, strategy="quantile")
    curve = calibration_curve(probabilities, labels, num_bins=10)
    assert curve.counts.tolist() == [500] * 10
    assert curve.predicted == pytest.approx(predicted, abs=1e-12)
    assert curve.observed == pytest.approx(observed, abs=1e-12)


def test_error_is_the_mass_weighted_gap() -> None:
    probabilities, labels, weights = sample()
    curve = calibration_curve(probabilities, labels, weights, num_bins=7)
    assert curve.weight.sum() == pytest.approx(1.0)
    assert curve.weight == pytest.approx(np.full(7, 1 / 7), abs=2e-3)
    found = expected_calibration_error(probabilities, labels, weights, num_bins=7).value
    assert found == pytest.approx((curve.weight * abs(curve.predicted - curve.observed)).sum())


def test_calibrated_is_near_zero_and_doubled_is_not() -> None:
    probabilities, labels, _ = sample(200_000)
    assert float(expected_calibration_error(probabilities, labels)) < 0.003
    doubled = np.minimum(2 * probabilities, 1)
    assert float(expected_calibration_error(doubled, labels)) > 0.05


def test_ties_share_a_bin_in_any_row_order() -> None:
    probabilities, labels, weights = sample()
    probabilities = np.round(probabilities, 2)
    order = np.random.default_rng(1).permutation(len(labels))
    for weight in (None, weights):
        curve = calibration_curve(probabilities, labels, weight)
        shuffled = calibration_curve(
            probabilities[order], labels[order], None if weight is None else weight[order]
        )
        assert curve.counts.tolist() == shuffled.counts.tolist()
        assert curve.observed == pytest.approx(shuffled.observed, abs=1e-12)
    assert calibration_curve(np.full(9, 0.25), np.arange(9) < 3).observed.tolist() == [3 / 9]


def test_bars_are_wilson_intervals() -> None:
    probabilities, labels, weights = sample()
    curve = calibration_curve(probabilities, labels, num_bins=5)
    for position in range(5):
        count = int(curve.counts[position])
        hits = round(curve.observed[position] * count)
        expected = binomtest(hits, count).proportion_ci(method="wilson")
        assert curve.low[position] == pytest.approx(expected.low, abs=1e-12)
        assert curve.high[position] == pytest.approx(expected.high, abs=1e-12)
    assert np.isnan(calibration_curve(probabilities, labels, weights).low).all()


def test_refuses_logits_and_no_bins() -> None:
    with pytest.raises(ValueError, match=r"probabilities\[0\] is 1.5"):
        calibration_curve([1.5, 0.2], [0, 1])
    with pytest.raises(ValueError, match="num_bins is 0"):
        calibration_curve([0.5, 0.2], [0, 1], num_bins=0)


def test_no_rows_have_no_error() -> None:
    assert expected_calibration_error([], []).reason == "no rows"
