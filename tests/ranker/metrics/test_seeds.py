import math

import numpy as np
import pytest
from scipy import stats

from ranker.metrics.seeds import (
    METHOD,
    ONE_SEED_METHOD,
    SeededMetric,
    seeded_difference,
    seeded_mean,
)


def metric(values: list[float], user_error: float, seed: int = 0) -> SeededMetric:
    drawn = np.random.default_rng(seed).normal(0, user_error, size=(1, 400))
    return SeededMetric(values=values, replicates=np.array(values)[:, None] + drawn)


def test_variances_of_users_and_seeds_add_up() -> None:
    values = [0.70, 0.71, 0.73]
    found = metric(values, 0.01)
    low, high = seeded_mean(found).bounds()
    users, seeds = found.replicates.mean(axis=0).var(ddof=1), np.var(values, ddof=1) / 3
    freedom = (users + seeds) ** 2 / (seeds**2 / 2)
    margin = stats.t.ppf(0.975, freedom) * math.sqrt(users + seeds)
    assert (low + high) / 2 == pytest.approx(np.mean(values))
    assert (high - low) / 2 == pytest.approx(margin, rel=1e-4)


def test_without_doubt_about_users_it_is_welchs_test() -> None:
    a, b = [0.70, 0.71, 0.73, 0.72], [0.69, 0.70, 0.695]
    paired = seeded_difference(metric(a, 0.0), metric(b, 0.0))
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert paired.p_value == pytest.approx(expected.pvalue, rel=1e-4)
    assert paired.interval.bounds() == pytest.approx(expected.confidence_interval(), rel=1e-4)
    assert paired.interval.method == METHOD


def test_what_users_share_cancels() -> None:
    # the same users move both runs alike, so one seed each and a tiny difference is still shown
    first, second = metric([0.701], 0.02), metric([0.700], 0.02)
    noise = np.random.default_rng(1).normal(0, 1e-5, size=(1, 400))
    second = SeededMetric(values=second.values, replicates=second.replicates + noise)
    paired = seeded_difference(first, second)
    assert paired.p_value is not None
    assert paired.p_value < 1e-6
    assert paired.interval.method == ONE_SEED_METHOD


def test_equal_runs_have_no_interval() -> None:
    paired = seeded_difference(metric([0.7], 0.01), metric([0.7], 0.01))
    assert paired.difference == 0
    assert paired.p_value is None
    assert paired.interval.reason == "the values do not vary"
