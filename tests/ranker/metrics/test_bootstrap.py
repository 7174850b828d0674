import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from ranker.metrics.auc import auc
from ranker.metrics.bootstrap import (
    auc_statistic,
    cluster_index,
    debiased_interval,
    gauc_statistic,
    paired_difference,
    percentile_interval,
    poisson_bootstrap,
    ratio,
    sums_statistic,
)
from ranker.metrics.delong import delong_interval
from ranker.metrics.gauc import gauc, group_aucs
from ranker.metrics.runs import score_runs
from ranker.metrics.value import Interval

Array = NDArray[Any]


def sample(
    seed: int = 0, *, num_users: int = 200, rows_per_user: int = 10, spread: float = 0.0
) -> tuple[Array, Array, Array]:
    """Rows of users that differ in how well they are ranked by `spread`."""
    generator = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), rows_per_user)
    labels = generator.random(len(users)) < 0.3
    quality = 1 + spread * generator.normal(size=num_users)
    scores = generator.normal(size=len(users)) + quality[users] * labels
    return scores, labels, users


def drawn_weights(num_clusters: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).poisson(1.0, size=num_clusters).astype(float)


def width(interval: Interval) -> float:
    low, high = interval.bounds()
    return high - low


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("decimals", [0, 9])
def test_statistics_equal_the_metrics_with_those_weights(weighted: bool, decimals: int) -> None:
    scores, labels, users = sample()
    scores = np.round(scores, decimals)
    row_weights = np.random.default_rng(1).gamma(1.0, size=len(users)) if weighted else None
    requests = users * 2 + (np.arange(len(users)) % 2)
    index, num_users = cluster_index(users * 7 - 3)
    drawn = drawn_weights(num_users)
    weights = drawn[index] * (1.0 if row_weights is None else row_weights)

    statistic = auc_statistic(scores, labels, index, row_weights)
    expected = auc(scores, labels, weights).value
    for _ in range(2):  # the buffer of the first call must not leak into the second
        assert statistic(drawn) == pytest.approx(expected, abs=1e-12)

    parts = group_aucs(scores, labels, requests, row_weights)
    statistic = gauc_statistic(parts, parts.groups // 2, num_users)
    assert statistic(drawn) == pytest.approx(
        gauc(scores, labels, requests, weights).impressions.value, abs=1e-12
    )

    columns = np.stack([scores, labels], axis=1) * weights[:, None]
    plain = np.stack([scores, labels], axis=1)
    if row_weights is not None:
        plain = plain * row_weights[:, None]
    statistic = sums_statistic(plain, index, num_users, ratio)
    assert statistic(drawn) == pytest.approx(columns[:, 0].sum() / columns[:, 1].sum(), abs=1e-12)


def test_a_pure_function_of_the_seed() -> None:
    scores, labels, users = sample()
    index, num_users = cluster_index(users)
    statistics = {"auc": auc_statistic(scores, labels, index)}

    def run(seed: int, num_replicates: int) -> Array:
        return poisson_bootstrap(
            statistics, num_clusters=num_users, num_replicates=num_replicates, seed=seed
        )["auc"]

    assert np.array_equal(run(5, 20), run(5, 20))
    assert np.array_equal(run(5, 20)[:10], run(5, 10))
    assert not np.array_equal(run(5, 20), run(6, 20))


def test_weights_are_poisson() -> None:
    seen: list[Array] = []

    def record(drawn: Array) -> float:
        seen.append(drawn)
        return 0.0

    poisson_bootstrap({"all": record}, num_clusters=50_000, num_replicates=4)
    drawn = np.concatenate(seen)
    assert drawn.mean() == pytest.approx(1.0, abs=0.01)
    assert drawn.var() == pytest.approx(1.0, abs=0.02)
    for count in range(5):
        expected = math.exp(-1) / math.factorial(count)
        assert np.mean(drawn == count) == pytest.approx(expected, abs=0.004)


def test_agrees_with_delong_when_every_row_is_a_user() -> None:
    scores, labels, _ = sample(num_users=2000, rows_per_user=1)
    index, num_users = cluster_index(np.arange(len(scores)))
    statistics = {"auc": auc_statistic(scores, labels, index)}
    replicates = poisson_bootstrap(statistics, num_clusters=num_users, num_replicates=400)["auc"]
    found = percentile_interval(replicates, num_clusters=num_users)
    expected = delong_interval(score_runs(scores, labels))
    assert found.low == pytest.approx(expected.low, abs=0.004)
    assert found.high == pytest.approx(expected.high, abs=0.004)


def test_covers_the_truth_where_independent_rows_would_not() -> None:
    samples = [sample(1000 + seed, spread=1.5) for seed in range(200)]
    truth = np.mean([float(gauc(*rows).impressions) for rows in samples])
    covered = narrower = 0
    for seed in range(300):
        scores, labels, users = sample(seed, spread=1.5)
        parts = group_aucs(scores, labels, users)
        replicates = poisson_bootstrap(
            {"gauc": gauc_statistic(parts, parts.groups, 200)},
            num_clusters=200,
            num_replicates=200,
            seed=seed,
        )["gauc"]
        low, high = percentile_interval(replicates, num_clusters=200).bounds()
        covered += int(low < truth < high)
        # users differ, so the interval that takes rows as independent is too narrow
        narrower += int(width(delong_interval(score_runs(scores, labels))) < high - low)
    assert 0.92 * 300 <= covered <= 0.985 * 300, covered
    assert narrower > 270


def test_paired_differences_are_sharper_than_two_intervals() -> None:
    generator = np.random.default_rng(0)
    scores, labels, users = sample(spread=1.0)
    close = scores + 0.6 * generator.normal(size=len(scores))
    index, num_users = cluster_index(users)
    replicates = poisson_bootstrap(
        {
            "a": auc_statistic(scores, labels, index),
            "b": auc_statistic(close, labels, index),
            "same": auc_statistic(2 * scores, labels, index),
        },
        num_clusters=num_users,
        num_replicates=300,
    )
    value_a, value_b = float(auc(scores, labels)), float(auc(close, labels))
    found = paired_difference(
        value_a, value_b, replicates["a"], replicates["b"], num_clusters=num_users
    )
    alone = percentile_interval(replicates["a"], num_clusters=num_users)
    assert found.difference == value_a - value_b
    assert width(found.interval) < 0.5 * width(alone)
    assert found.interval.bounds()[0] > 0
    floor = stats.norm.isf(1 / 301) * math.sqrt((num_users - 1) / num_users)
    assert found.p_value == pytest.approx(2 * stats.t.sf(floor, num_users - 1), rel=1e-4)
    same = paired_difference(
        value_a, value_a, replicates["a"], replicates["same"], num_clusters=num_users
    )
    assert same.p_value == 1.0
    assert same.interval.low == same.interval.high == 0.0


@pytest.mark.parametrize("num_clusters", [10, 40, 1000])
def test_the_p_value_and_the_interval_agree(num_clusters: int) -> None:
    generator = np.random.default_rng(3)
    for shift in np.linspace(1.7, 2.6, 10):
        drawn = generator.normal(shift, size=2000)
        paired = paired_difference(shift, 0.0, drawn, drawn * 0, num_clusters=num_clusters)
        assert paired.p_value is not None
        # a p-value near the level may fall on either side
        if abs(paired.p_value - 0.05) > 0.004:
            assert (paired.p_value < 0.05) == (paired.interval.bounds()[0] > 0)


def test_a_bias_is_taken_off_and_counted() -> None:
    generator = np.random.default_rng(0)
    drawn = 0.05 + 0.01 * generator.normal(size=2000)
    interval = debiased_interval(0.03, drawn, num_clusters=400)
    margin = stats.t.ppf(0.975, 399) * math.hypot(0.01, 0.02)
    low, high = interval.bounds()
    assert low == 0.0
    assert high == pytest.approx(0.03 - 0.02 + margin, abs=1e-3)
    low, high = debiased_interval(0.5, drawn + 0.45, num_clusters=400).bounds()
    assert (low, high) == pytest.approx((0.5 - 0.01 * 1.966, 0.5 + 0.01 * 1.966), abs=2e-3)
    few = debiased_interval(0.03, drawn, num_clusters=9)
    assert few.reason == "9 users are too few to resample (at least 10)"


def test_few_users_have_no_interval() -> None:
    interval = percentile_interval(np.linspace(0, 1, 100), num_clusters=9)
    assert interval.low is None
    assert interval.reason == "9 users are too few to resample (at least 10)"


def test_undefined_replicates_are_left_out_until_they_are_many() -> None:
    replicates = np.linspace(0, 1, 101)
    replicates[:5] = np.nan
    interval = percentile_interval(replicates, num_clusters=50, level=0.9)
    # the expanded interval of Hesterberg 2015, in the words of SciPy
    tail = stats.norm.cdf(-math.sqrt(50 / 49) * stats.t.ppf(0.95, 49))
    expected = np.quantile(replicates[5:], [tail, 1 - tail], method="weibull")
    assert interval.bounds() == pytest.approx(tuple(expected))
    assert tail < 0.05
    replicates[:6] = np.nan
    interval = percentile_interval(replicates, num_clusters=50)
    assert interval.reason == "undefined in 6 of 101 replicates"
    missing = paired_difference(0.5, 0.5, replicates, replicates, num_clusters=50)
    assert missing.p_value is None


def test_a_replicate_without_positives_is_undefined() -> None:
    statistic = auc_statistic([0.1, 0.2, 0.3], [0, 0, 1], np.array([0, 0, 1]))
    assert math.isnan(statistic(np.array([2.0, 0.0])))
    assert statistic(np.array([1.0, 1.0])) == 1.0
    assert math.isnan(ratio(np.array([1.0, 0.0])))


def test_refuses_one_replicate() -> None:
    with pytest.raises(ValueError, match="num_replicates is 1"):
        poisson_bootstrap({}, num_clusters=3, num_replicates=1)
