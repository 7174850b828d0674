from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss

from ranker.metrics.logloss import (
    binary_entropy,
    brier,
    logloss,
    normalized_entropy,
    relative_information_gain,
    row_logloss,
)

Array = NDArray[Any]


def sample(size: int = 2000) -> tuple[Array, Array, Array]:
    generator = np.random.default_rng(0)
    logits = generator.normal(-2, 1.5, size=size)
    return logits, generator.random(size) < expit(logits), generator.gamma(1.0, size=size)


@pytest.mark.parametrize("weighted", [False, True])
def test_equal_scikit_learn(weighted: bool) -> None:
    logits, labels, some = sample()
    weights = some if weighted else None
    probabilities = expit(logits)
    assert logloss(logits, labels, weights).value == pytest.approx(
        log_loss(labels, probabilities, sample_weight=weights), abs=1e-12
    )
    assert brier(probabilities, labels, weights).value == pytest.approx(
        brier_score_loss(labels, probabilities, sample_weight=weights), abs=1e-12
    )


def test_large_logits_neither_overflow_nor_clip() -> None:
    assert row_logloss([1e4, -1e4, 1e4, -1e4], [1, 0, 0, 1]).tolist() == [0.0, 0.0, 1e4, 1e4]
    assert row_logloss([-60.0], [0])[0] == pytest.approx(np.exp(-60.0))


def test_the_mean_label_has_an_entropy_of_one() -> None:
    _, labels, weights = sample()
    for weight in (None, weights):
        rate = np.average(labels, weights=weight)
        constant = np.full(len(labels), np.log(rate / (1 - rate)))
        assert normalized_entropy(constant, labels, weight).value == pytest.approx(1.0, abs=1e-12)
        assert relative_information_gain(constant, labels, weight).value == pytest.approx(
            0.0, abs=1e-12
        )


def test_a_better_model_has_less_entropy() -> None:
    logits, labels, _ = sample()
    assert float(normalized_entropy(logits, labels)) < 1
    assert float(normalized_entropy(-logits, labels)) > 1


def test_entropy_of_a_fair_coin() -> None:
    assert binary_entropy(0.5) == pytest.approx(np.log(2))


def test_undefined_without_rows_or_with_one_class() -> None:
    assert logloss([], []).reason == "no rows"
    assert brier([], []).reason == "no rows"
    assert logloss([-3.0, -2.0], [0, 0]).value is not None
    for metric in (normalized_entropy, relative_information_gain):
        value = metric([-3.0, -2.0], [0, 0])
        assert (value.value, value.reason) == (None, "no positives in 2 rows")


def test_logits_are_not_probabilities() -> None:
    with pytest.raises(ValueError, match=r"probabilities\[1\] is -2.0; .* not logits"):
        brier([0.5, -2.0], [0, 1])
