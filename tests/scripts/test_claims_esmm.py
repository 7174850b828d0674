import numpy as np
import pytest

from scripts.claims_esmm import soft_auc


def test_soft_auc_is_the_expected_share_of_ordered_pairs() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(30)
    scores = np.round(truth + generator.normal(0, 0.3, 30), 1)  # with ties
    share, total = 0.0, 0.0
    for i in range(30):
        for j in range(30):
            weight = truth[i] * (1 - truth[j])
            share += weight * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
            total += weight
    assert soft_auc(scores, truth) == pytest.approx(share / total)
    assert soft_auc(np.zeros(30), truth) == pytest.approx(0.5)
